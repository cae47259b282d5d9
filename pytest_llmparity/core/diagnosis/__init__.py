"""From evidence to what differs between two engines, layer by layer."""

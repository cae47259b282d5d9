"""The small process that owns engine processes, and its client."""

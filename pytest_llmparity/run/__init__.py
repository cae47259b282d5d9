"""Floor 2: order and lifetimes of a run."""

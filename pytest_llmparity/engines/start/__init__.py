"""Starting an engine: its program, its environment, waiting until it is ready, its memory."""

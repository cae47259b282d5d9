"""What is recorded of an engine, as it is played."""

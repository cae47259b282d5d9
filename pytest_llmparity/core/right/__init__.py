"""Whether an answer is right: what it says, and what its prompt says is expected."""

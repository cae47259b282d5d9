"""A marker becomes a declaration: prompts, checks and how they are asked; those of a run are its gates."""

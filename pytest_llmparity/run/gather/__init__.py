"""Asking the prompts of a run, engine by engine, into the store."""

"""Verbs of whoever releases: the gate, and the search for the first version that does not pass it."""

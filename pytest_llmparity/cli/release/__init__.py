"""Verbs of whoever releases: the gate, the first version that does not pass it, and how runs went."""

"""Decisions: what `--parity-policy` does in a run, and what commands add to the pytest that they start."""

"""From the store to verdicts."""

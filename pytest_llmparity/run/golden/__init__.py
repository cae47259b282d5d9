"""Golden answers in a run, and what a run notes so that its own answers can become golden."""

"""What outlives a run in files that are committed: golden answers, without those nobody asks any more; recordings."""

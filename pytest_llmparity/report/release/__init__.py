"""What a release manager reads: one decision, and the search for the first version that does not pass."""

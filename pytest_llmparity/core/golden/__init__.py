"""Golden answers: what one engine answered to one prompt set, kept in files that people review."""

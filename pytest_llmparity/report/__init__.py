"""Floor 3: records in, text or files out."""

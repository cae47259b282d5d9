"""Bounds and tests; every function is pure and names its source."""

"""One adapter per kind of engine."""

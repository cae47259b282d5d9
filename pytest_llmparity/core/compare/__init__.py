"""Comparators: two answers in, what differs out."""

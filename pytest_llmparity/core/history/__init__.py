"""Runs one after another: what is kept of each, and how a quantity went."""

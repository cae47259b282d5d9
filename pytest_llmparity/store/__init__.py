"""Runs and samples on disk."""

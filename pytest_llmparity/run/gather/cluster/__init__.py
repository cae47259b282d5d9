"""Engines on a Ray cluster: placed with their resources, asked beside where they run, by the code that asks locally."""

"""Engines: one adapter per kind, how they are started, waited for, recognised and identified."""

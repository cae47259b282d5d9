"""Sentences for people: explanations, errors in words, text made harmless, keys hidden."""

"""Engines that are started or loaded here: their processes, and the memory they give back."""

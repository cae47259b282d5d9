"""Checks of what one engine does by itself, whatever another one answers."""

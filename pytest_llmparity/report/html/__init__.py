"""The run as one HTML page that needs nothing else: ``page`` makes it of a template, a style and a script beside it."""

"""The timed phase: latency, measured in a process of its own."""

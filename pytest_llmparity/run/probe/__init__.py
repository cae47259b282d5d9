"""Questions of our own to an engine, before prompts are asked."""

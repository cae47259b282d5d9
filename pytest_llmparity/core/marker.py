"""The marker as users write it: registered with pytest and quoted in every error about it."""

from __future__ import annotations

from typing import Final

SIGNATURE: Final = "parity(prompts, *checks, max_tokens=64, sampling=None, concurrency=None, repeats=1)"

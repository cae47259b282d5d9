"""Golden files on disk: ``golden/SET/ENGINE.jsonl`` and the logprobs beside it."""

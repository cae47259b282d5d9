"""How far greedy answers drift from each other, and from themselves: by their text, and by their logprobs."""

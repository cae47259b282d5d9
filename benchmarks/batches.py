"""How far a model's next tokens move by how many prompts share a batch: transformers on a CPU, the tiny model.

    ~/transformers/bin/python benchmarks/batches.py [--device cpu] [--prompts 32]

The first tokens of as many rendered prompts of the pool, all equally long so that nothing is padded, are read in
batches of 1, 8 and 32: half of them at once and the others one by one with a cache, as tokens of an answer are. The
shift is that of ``check.logprobs()``: by how much the lead of the best token over the second moved against a batch of
one; the median over the places of a prompt, then over prompts. Run by the interpreter that has torch and transformers;
nothing of this package is imported.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
MODEL: Final = ROOT / "fixtures/models/tiny"
LENGTH: Final = 32
BATCHES: Final = (1, 8, 32)


def prompts(tokenizer: Any, count: int) -> list[list[int]]:
    """Return the first tokens of so many rendered prompts that are long enough."""
    rows = (ROOT / "fixtures/prompts/pool.jsonl").read_text("utf-8").splitlines()
    chats = [json.loads(row)["messages"] for row in rows[:: len(rows) // 250]]
    texts = [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
    tokens = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return [ids[:LENGTH] for ids in tokens if len(ids) >= LENGTH][:count]


def logits(torch: Any, model: Any, batch: Any) -> Iterator[Any]:
    """Yield what the model says behind each token of the second half, read one by one."""
    half = LENGTH // 2
    seen = model(batch[:, :half], use_cache=True)
    for at in range(half, LENGTH):
        yield seen.logits[:, -1].float()
        seen = model(batch[:, at : at + 1], past_key_values=seen.past_key_values, use_cache=True)
    yield seen.logits[:, -1].float()


def measured(torch: Any, model: Any, ids: Any, size: int) -> Any:
    """Return the logits of all prompts, read in batches of this size: prompt, place, token."""
    with torch.inference_mode():
        parts = [
            torch.stack(list(logits(torch, model, ids[begin : begin + size])), dim=1)
            for begin in range(0, len(ids), size)
        ]
    return torch.cat(parts)


def main() -> None:
    """Measure and print."""
    import torch
    import transformers

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prompts", type=int, default=32)
    asked = parser.parse_args()
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    ids = torch.tensor(prompts(tokenizer, asked.prompts), device=asked.device)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, {asked.device}, {len(ids)} prompts")
    print("| type | batch | shift | largest of a prompt | places that moved | best token another one |")
    for name in ("bfloat16", "float32"):
        model = transformers.AutoModelForCausalLM.from_pretrained(MODEL, dtype=getattr(torch, name)).to(asked.device)
        alone = measured(torch, model, ids, 1)
        first, second = alone.topk(2).indices.unbind(-1)
        for size in BATCHES:
            there = measured(torch, model, ids, size)
            leads = [of.gather(-1, first[..., None]) - of.gather(-1, second[..., None]) for of in (alone, there)]
            moved = (leads[1] - leads[0]).abs().squeeze(-1)
            by_prompt = [statistics.median(row) for row in moved.tolist()]
            another = (there.argmax(-1) != alone.argmax(-1)).float().mean().item()
            print(
                f"| {name} | {size} | {statistics.median(by_prompt):.5f} | {max(by_prompt):.5f} "
                f"| {(moved > 0).float().mean().item():.1%} | {another:.1%} of {first.numel()} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""The drift of greedy text that is accepted by default: it follows from what two engines store their weights in."""

from __future__ import annotations

from typing import Final

from pytest_llmparity.core.evidence import EngineEvidence
from pytest_llmparity.core.identity.quantization import bits
from pytest_llmparity.core.words import explain

HORIZON: Final = 32
"""Tokens of an answer that are compared; the margins below belong to this horizon."""
PRESETS: Final = ((8.0, 0.05), (6.0, 0.07), (4.0, 0.12))
"""Accepted forks per token by the bits of the coarser quantisation, for a horizon of 32 tokens and mixed prompts
(METHODS 7.4: an honest 16- or 8-bit pair forks at 1-3 %, a 6-bit one at 3-4.5 %, a 4-bit one at 7-8.5 %)."""


def preset(baseline: EngineEvidence, candidate: EngineEvidence) -> tuple[float | None, str]:
    """Return the margin two engines' quantisations call for and why; ``None`` and the next step where none is known."""
    found: list[float] = []
    for engine in (baseline, candidate):
        if engine.quantization is None:
            return None, f"no margin: the quantisation of {engine.name} is not known; pin it or give margin="
        width = bits(engine.quantization)
        if width is None:
            return None, f"no margin: {engine.quantization} of {engine.name} does not say its bits; give margin="
        found.append(min(width, 16.0))
    coarser = min(found)
    if coarser > PRESETS[0][0]:
        coarser = PRESETS[0][0]
    for width, margin in PRESETS:
        if coarser == width:
            both = f"{baseline.quantization} against {candidate.quantization}"
            return margin, f"margin {explain.percent(margin)} for {both}, over {HORIZON} tokens"
    name = baseline.quantization if found[0] == coarser else candidate.quantization
    return None, f"no margin: none is known for {coarser:g}-bit weights ({name}); give margin="

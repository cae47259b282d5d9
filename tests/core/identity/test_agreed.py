"""For whom an accepted margin holds, and which one is proposed."""

from __future__ import annotations

import dataclasses

import pytest

from pytest_llmparity.core.identity.agreed import Accepted, Agreed, Party, proposed
from pytest_llmparity.core.sample import Fact, Identity

PARTY = Party(kind="vllm", facts={"model": "qwen", "quantization": "BF16", "version": "0.33.0"})
ACCEPTED = Accepted(
    baseline="prod",
    candidate="dev",
    shift=0.054,
    date="2026-11-28",
    estimate=0.03,
    lower=0.026,
    upper=0.036,
    floor=0.0002,
    prompts=32,
    groups=32,
    prompt_set="calibration",
    plugin="1.0",
    of_baseline=PARTY,
    of_candidate=PARTY,
)


def party(**facts: str) -> Party:
    return dataclasses.replace(PARTY, facts={**PARTY.facts, **facts})


@pytest.mark.parametrize(
    ("before", "now", "differing"),
    [
        ({}, {}, []),
        ({}, {"version": "0.34.1"}, []),
        ({}, {"quantization": "FP8"}, ["quantization BF16 -> FP8"]),
        ({}, {"model": "llama"}, ["model qwen -> llama"]),
        ({"digest": "sha256:" + "a" * 64}, {"digest": "sha256:" + "a" * 64, "model": "other name"}, []),
        (
            {"digest": "sha256:" + "a" * 64},
            {"digest": "sha256:" + "b" * 64},
            ["digest sha256:aaaaaaaaaaaa -> sha256:bbbbbbbbbbbb"],
        ),
        ({"revision": "c1"}, {"revision": "c2"}, ["revision c1 -> c2"]),
        ({"revision": "b968826d9c46"}, {"revision": "b968826d9c46", "model": "other name"}, []),
        ({"revision": "main"}, {"revision": "main", "model": "llama"}, ["model qwen -> llama"]),
        ({"digest": "sha256:" + "a" * 64}, {}, []),
        ({"digest": "sha256:" + "a" * 64}, {"model": "llama"}, ["model qwen -> llama"]),
        ({"quantization": "GPTQ_INT4"}, {"quantization": "GPTQ"}, []),
    ],
)
def test_weights_and_quantisation_matter_and_a_version_does_not(
    before: dict[str, str], now: dict[str, str], differing: list[str]
) -> None:
    assert party(**before).differs(party(**now)) == differing


def test_another_kind_of_engine_is_another_engine() -> None:
    assert PARTY.differs(dataclasses.replace(PARTY, kind="ollama")) == ["kind vllm -> ollama"]


def test_differences_and_upgrades_name_the_engine() -> None:
    other, newer = party(quantization="Q4_0"), party(version="0.34.1")

    assert ACCEPTED.differs(PARTY, other) == ["dev: quantization BF16 -> Q4_0"]
    assert ACCEPTED.upgraded(newer, PARTY) == ["prod 0.33.0 -> 0.34.1"]
    assert ACCEPTED.differs(newer, PARTY) == []


def test_a_party_holds_what_matters_and_no_folder_of_a_machine() -> None:
    told: dict[str, str | int] = {
        "model": "/srv/models/tiny.gguf",
        "quantization": "Q8_0",
        "slots": 4,
        "digest": "sha256:ab",
    }
    identity = Identity(facts={name: Fact(value=value, source="reported") for name, value in told.items()})

    made = Party.of("llamacpp", identity, "Q4_0")

    assert made.facts == {"digest": "sha256:ab", "model": "tiny.gguf", "quantization": "Q4_0"}


def test_a_pair_has_one_margin_the_newest() -> None:
    again, turned = (
        dataclasses.replace(ACCEPTED, shift=0.1),
        dataclasses.replace(ACCEPTED, baseline="dev", candidate="prod"),
    )

    agreed = Agreed().accepting(ACCEPTED).accepting(turned).accepting(again)

    assert agreed.margin("prod", "dev") == again
    assert agreed.margin("dev", "prod") == turned
    assert agreed.margin("prod", "other") is None
    assert len(agreed.margins) == 2


@pytest.mark.parametrize("upper", [0.0, 1e-5, 0.004, 0.0341, 0.0999, 0.1, 0.66, 7.3])
def test_a_proposed_margin_has_two_digits_and_is_never_below_one_and_a_half_times_the_bound(upper: float) -> None:
    margin = proposed(upper)

    assert margin >= max(0.005, 1.5 * upper) - 1e-9
    assert margin <= max(0.005, 1.5 * upper) * 1.1
    assert len(f"{margin:.6f}".replace(".", "").strip("0")) <= 2

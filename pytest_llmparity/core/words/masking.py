"""Keeping keys out of samples and identities before they are written; ``core.words.hiding`` says what is searched."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from pytest_llmparity.core.sample import Completion, Identity, Sample, TokenLogprob, from_json, to_json
from pytest_llmparity.core.words.hiding import TextMask

_REST: Final = re.compile(r"… \(\d+ characters, sha256 [0-9a-f]+\)\Z")
"""How a request or answer ends that ``core.values.calls`` has cut."""


class Mask(TextMask):
    """Replaces the values of ``secrets`` in texts, and in the values of ours that hold texts."""

    def sample(self, sample: Sample) -> Sample:
        """Return the sample with the secrets in its texts replaced, also where its tokens spell one together.

        So is the beginning of one with which an answer ends that the token limit cut.
        """
        if not self._forms:
            return sample
        completion = sample.completion
        if completion is not None:
            cut = completion.cut
            plain = self.value(to_json(msgspec.structs.replace(completion, logprobs=())))
            tokens = self._tokens(completion.logprobs, cut=cut)
            completion = msgspec.structs.replace(from_json(Completion, plain), logprobs=tokens)
            completion = self._uncut(completion) if cut else completion
            turns, choices = (
                tuple(self._uncut(part) if part.cut else part for part in parts)
                for parts in (completion.turns, completion.choices)
            )
            completion = msgspec.structs.replace(completion, turns=turns, choices=choices)
            calls = [
                msgspec.structs.replace(call, request=self._kept(call.request), answer=self._kept(call.answer))
                for call in completion.calls or ()
            ]
            completion = msgspec.structs.replace(completion, calls=tuple(calls)) if calls else completion
        failure = sample.failure
        if failure is not None:
            failure = dataclasses.replace(failure, message=self.torn(failure.message))
        return msgspec.structs.replace(sample, completion=completion, failure=failure)

    def identity(self, identity: Identity) -> Identity:
        """Return the identity with the secrets in what the server said replaced."""
        return from_json(Identity, self.value(to_json(identity))) if self._forms else identity

    def _uncut(self, completion: Completion) -> Completion:
        """Hide the beginning of a secret at the end of each text of an answer that was cut."""

        def whole(text: str) -> str:
            return self._hide(text, self._spans(text, cut=True))

        return msgspec.structs.replace(
            completion,
            text=whole(completion.text),
            reasoning=whole(completion.reasoning),
            tool_calls=tuple(dataclasses.replace(c, arguments=whole(c.arguments)) for c in completion.tool_calls),
        )

    def _kept(self, text: str) -> str:
        """Hide the beginning of a secret at the end of what is kept of a longer request or answer."""
        rest = _REST.search(text)
        if rest is None:
            return text
        kept = text[: rest.start()]
        return self._hide(kept, self._spans(kept, cut=True)) + rest.group()

    def _tokens(self, tokens: Sequence[TokenLogprob], *, cut: bool = False) -> tuple[TokenLogprob, ...]:
        """Blank the tokens a secret is spelt with, alternatives and ids too: each would give a piece of it back."""
        spelt = b"".join(token.token for token in tokens).decode("utf-8", "surrogateescape")
        spans = [
            (len(spelt[:start].encode("utf-8", "surrogateescape")), len(spelt[:end].encode("utf-8", "surrogateescape")))
            for start, end, _ in self._spans(spelt, cut=cut)
        ]
        kept, place = [], 0
        for token in tokens:
            begin, place = place, place + len(token.token)
            if any(start < place and begin < end for start, end in spans):
                token = TokenLogprob(token="«»".encode(), logprob=token.logprob)
            elif any(len(other) >= self._shortest and self.binary(other) != other for other, _ in token.top):
                token = msgspec.structs.replace(token, top=tuple((self.binary(other), lp) for other, lp in token.top))
            kept.append(token)
        return tuple(kept)

"""What an adapter for another engine is made of: everything its author may rely on, in one place.

    from pytest_llmparity.adapter import Adapter, EVERY_SERVER

Subclass :class:`Adapter` and hand the class over, by the hook ``pytest_llmparity_engines`` or by an entry point of
the group ``llmparity.engines`` whose name is the adapter's kind. ``docs/adding-an-engine.md`` walks through one.
Names that are not in ``__all__`` may change in any release.
"""

from pytest_llmparity.core import errors
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.quantization import normalise
from pytest_llmparity.core.ports import Answer
from pytest_llmparity.core.sample import (
    IDENTITY,
    Completion,
    Fact,
    Identity,
    Request,
    Sampling,
    TokenLogprob,
    ToolCall,
    WireRequest,
)
from pytest_llmparity.engines.facts.values import facts
from pytest_llmparity.engines.start.launch import Launch
from pytest_llmparity.engines.start.program import flags, option, program
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.engines.wire.build import EVERY_SERVER, OPEN_SERVERS
from pytest_llmparity.engines.wire.control import Control, Reply
from pytest_llmparity.engines.wire.refusals import Meaning
from pytest_llmparity.settings.specification import EngineSpec

__all__ = [
    "EVERY_SERVER",
    "IDENTITY",
    "OPEN_SERVERS",
    "Adapter",
    "Answer",
    "Capabilities",
    "Completion",
    "Control",
    "EngineSpec",
    "Fact",
    "Identity",
    "Launch",
    "Meaning",
    "Reply",
    "Request",
    "Sampling",
    "TokenLogprob",
    "ToolCall",
    "WireRequest",
    "errors",
    "facts",
    "flags",
    "normalise",
    "option",
    "program",
]

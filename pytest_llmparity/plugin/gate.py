"""What ``llmparity gate``, ``bisect`` and ``record`` add to their pytest: a policy is held against it, a run named.

Loaded by ``-p`` and by nobody else.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity.core.gate import JUDGED_OPTION, POLICY_OPTION, RECORDER_OPTION, RUN_OPTION, VARIANTS_OPTION
from pytest_llmparity.plugin.fixtures import DOOR

if TYPE_CHECKING:
    from pytest_llmparity.core.identity.record import RunRecord


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options by which the command talks to its child."""
    group = parser.getgroup("llmparity-gate")
    group.addoption(RUN_OPTION, dest="llmparity_gate_run", metavar="FILE", help="File that is told the run's id")
    group.addoption(
        POLICY_OPTION, dest="llmparity_gate_policy", metavar="FILE", help="Policy to hold the suite against"
    )
    group.addoption(RECORDER_OPTION, dest="llmparity_recorder", metavar="FILE", help="File that answers are noted in")
    group.addoption(
        VARIANTS_OPTION,
        dest="parity_variants",
        metavar="JSON",
        help="Configured engines with other values of some keys",
    )
    group.addoption(
        JUDGED_OPTION,
        dest="parity_judged_too",
        action="store_true",
        default=None,
        help="Ask nobody where a run of the same plan has every answer, also one that was judged already",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse a policy with a rule that names nothing of the suite, before anybody is asked.

    Under xdist it is refused after the run: no process that could say so knows the tests before.
    """
    config = session.config
    policy = config.getoption("llmparity_gate_policy")
    door = config.stash.get(DOOR, None)
    if policy is None or door is None or hasattr(config, "workerinput") or not session.items:
        return
    from pytest_llmparity.core.errors import ConfigError
    from pytest_llmparity.core.gate.policy import parse_policy
    from pytest_llmparity.plugin.repeats import gate_of

    kinds = {declared.test: [check.kind for check in declared.checks] for declared in door.session.declarations()}
    tests = {gate_of(item): kinds.get(gate_of(item), []) for item in session.items}
    for item in session.items:
        if item.get_closest_marker("parity") and not item.get_closest_marker("skip") and gate_of(item) not in kinds:
            return  # its marker cannot be used, which its set-up will tell
    try:
        parse_policy(Path(policy).read_bytes(), source=policy).refuse_idle(tests, declared=True)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_llmparity_report(config: pytest.Config, record: RunRecord) -> None:
    """Say which run this is."""
    if (path := config.getoption("llmparity_gate_run")) is not None:
        Path(path).write_text(record.run, "utf-8")

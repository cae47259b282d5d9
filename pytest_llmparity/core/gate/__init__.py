"""Whether a candidate may replace a baseline: a policy, what it makes of a run's verdicts, and which cases turned."""

from __future__ import annotations

from typing import Final

PLUGIN: Final = "pytest_llmparity.plugin.gate"
RUN_OPTION: Final = "--llmparity-gate-run"
POLICY_OPTION: Final = "--llmparity-gate-policy"
"""How ``llmparity gate`` talks to the pytest that it starts: by a plugin and its two options."""

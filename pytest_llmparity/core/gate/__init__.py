"""Whether a candidate may replace a baseline: a policy, what it makes of a run's verdicts, and which cases turned."""

from __future__ import annotations

from typing import Final

PLUGIN: Final = "pytest_llmparity.plugin.release.child"
RUN_OPTION: Final = "--llmparity-gate-run"
RECORDER_OPTION: Final = "--llmparity-recorder"
VARIANTS_OPTION: Final = "--llmparity-gate-variants"
JUDGED_OPTION: Final = "--llmparity-gate-judged"
"""How ``llmparity gate``, ``bisect`` and ``record`` talk to the pytest that they start: by a plugin and its options."""
NO_FILE: Final = "every check is required"
"""How a decision names the policy that is in force without a file."""

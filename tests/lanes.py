"""Which live tests belong to one worker where several share them: those that one start of an engine serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests.engines.live import WAYS

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController  # type: ignore[import-untyped]

VLLM = "runs with vLLM"
LONGEST = (
    *(VLLM, "vllm", "tests/live/test_findings.py", "tests/live/test_smollm2.py", "tests/live/test_causes.py"),
    *("transformers", "mlx"),
)
"""What takes longest begins, so that nobody waits for it at the end."""

WITHIN = ("tests/live/test_smollm2.py",)
"""Files whose tests share answers, whichever kind they name: engines of their own serve another model."""


def lane_of(nodeid: str) -> str:
    """Return what a live test shares with others: an engine of one kind, a run that starts vLLM, or its file."""
    path, _, test = nodeid.partition("::")
    if path in WITHIN:
        return path
    if path.startswith(("tests/engines/", "tests/live/")):
        name = test.partition("[")[2].rstrip("]")
        kinds = [kind for kind in WAYS if name == kind or name.startswith(f"{kind}-") or name.endswith(f"-{kind}")]
        if kinds:
            return max(kinds, key=len)
    return VLLM if path.startswith("tests/live/") and "vllm" in nodeid else path


class Lanes(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each worker one lane after the other, the longest first."""

    def _split_scope(self, nodeid: str) -> str:
        return lane_of(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        first = next((lane for lane in LONGEST if lane in self.workqueue), None)
        if first is not None:
            self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)

"""Lets processes that Python would start anew be forks, in every Python that has this folder in ``PYTHONPATH``.

On the CPU vLLM starts its engine core anew, whatever it is told, and that imports vLLM for eight seconds of a
processor. As a fork it is the same process, of the same parent, without that.
"""

import multiprocessing
import os
from multiprocessing.context import BaseContext

of_method = multiprocessing.get_context


def get_context(method: str | None = None) -> BaseContext:
    """Return the context of a method, and that of forks for the one that imports anew."""
    return of_method("fork" if method == "spawn" else method)


multiprocessing.get_context = get_context  # type: ignore[assignment]
# The title that a fork gives itself would else take the place of its environment, by which it is known.
os.environ.setdefault("SPT_NOENV", "1")

"""Test files whose assertions pytest rewrites: each by one of several workers, as in a fresh clone all rewrite all."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

PRIVATE = (ImportError, AttributeError, TypeError, ValueError, LookupError, OSError)
"""What a pytest raises that has other names, arguments or results inside, or a folder that takes no file."""


def rewrite_together(config: pytest.Config, paths: Iterable[Path], part: int, parts: int) -> list[Path]:
    """Keep what pytest makes of these files where nothing is kept of it yet; return those that were rewritten here.

    Each of several workers begins with its part, files of all sizes, and then takes from the ends of others' parts what
    these have not come to. A file that cannot be compiled is left to the collection, which says so.

    Where this pytest is another inside, what is left is left to the collection too: this saves four seconds of a fresh
    clone, and no release of pytest may keep the tests from being collected for that.
    """
    if sys.dont_write_bytecode:
        return []
    by_size = sorted(paths, key=lambda path: (-path.stat().st_size, path))
    others = [path for other in range(1, parts) for path in reversed(by_size[(part + other) % parts :: parts])]
    done: list[Path] = []
    with contextlib.suppress(*PRIVATE):
        from _pytest.assertion import rewrite

        for path in [*by_size[part::parts], *others]:
            folder = rewrite.get_cache_dir(path)
            kept = folder / f"{path.stem}{rewrite.PYC_TAIL}"
            if kept.exists() or not rewrite.try_makedirs(folder):
                continue
            try:
                of_source, code = rewrite._rewrite_test(path, config)
            except SyntaxError:
                continue
            rewrite._write_pyc(config.stash[rewrite.assertstate_key], code, of_source, kept)
            done.append(path)
    return done

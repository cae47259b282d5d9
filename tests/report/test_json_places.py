"""Folders of this machine vanish from sentences; longer names that only begin alike stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_llmparity.report.json import Places, here

PLACES = Places(root=Path("/home/me/p"), home=Path("/home/me"), files=["/data/m/y.gguf", "C:\\models\\tiny", "a/b"])


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("/home/me/p/tests/test_a.py:4", "tests/test_a.py:4"),
        ("in /home/me/p.", "in .."),
        ("'/home/me/p/'", "'./'"),
        ("/home/me/q", "~/q"),
        ("(/home/me)", "(~)"),
        ("/home/me/p2 and /home/me/p.old and /home/me-too", "~/p2 and ~/p.old and /home/me-too"),
        ("/mnt/home/me/p", "/mnt/home/me/p"),
        ("file:///home/me/p/x", "file://x"),
        ("/data/m/y.gguf, /data/m/y.gguf2, /data/m", "y.gguf, /data/m/y.gguf2, /data/m"),
        (r"'C:\\models\\tiny' and C:\models\tiny and C:/models/tiny", "'tiny' and tiny and tiny"),
        ("a/b", "a/b"),
        (["/home/me/p/x", {"k": ("/home/me",)}, 3, None], ["x", {"k": ["~"]}, 3, None]),
    ],
)
def test_a_text_without_the_folders(text: object, short: object) -> None:
    assert PLACES.shorten(text) == short


def test_without_a_folder_texts_stay() -> None:
    assert Places(root=Path("/"), home=None).shorten("/etc/passwd") == "/etc/passwd"


def test_an_account_without_a_home_has_no_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)

    assert here(Path("/p"), ()).shorten("/p/x and /root/y") == "x and /root/y"

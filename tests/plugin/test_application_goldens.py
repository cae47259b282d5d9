"""Values of an application become golden answers, and its engine is not asked where these stand for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_applications import application

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench


@pytest.mark.slow
def test_golden_values_stand_for_their_engine_and_files_of_one_name_have_their_own(bench: Bench) -> None:
    application(bench, "check.value(agree=0.8)", "return answer")
    text = (bench.pytester.path / "test_app.py").read_text()
    for folder in ("mails", "chats"):
        (bench.pytester.path / folder).mkdir()
        (bench.pytester.path / folder / "test_app.py").write_text(text.replace("INPUTS = [", f"#{folder}\nINPUTS = ["))
    (bench.pytester.path / "test_app.py").unlink()
    engines = [bench.engine("billing"), bench.engine("billing")]
    mode = "--import-mode=importlib"

    wrote = bench.run(mode, "--parity-update-golden=all", engines=engines)

    assert wrote.ret == pytest.ExitCode.TESTS_FAILED  # nobody has seen these yet
    sets = sorted(path.name for path in (bench.pytester.path / "golden").iterdir())
    assert sets == ["chats.test_app.test_bot", "mails.test_app.test_bot"]
    asked = len(bench.asked(engines[0]))
    same = bench.run(mode, f"--engines=golden:a,b={engines[1].base_url}")
    assert same.ret == pytest.ExitCode.OK
    other = bench.run(mode, f"--engines=golden:a,b={bench.engine('shipping').base_url}")
    assert other.ret == pytest.ExitCode.TESTS_FAILED
    other.stdout.fnmatch_lines(["FAIL value.agree, b against golden-a*", '*golden-a "billing"', '*b * "shipping"'])
    assert len(bench.asked(engines[0])) == asked

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity import lockfile
from pytest_llmparity.cli.lock import _tell
from pytest_llmparity.core.identity.lock import NAME, Locked, differences
from pytest_llmparity.core.sample import Fact
from pytest_llmparity.testing import Reply
from tests.doubles.abilities import Abilities
from tests.doubles.installed import installed_from

if TYPE_CHECKING:
    from pytest_llmparity.testing import LoopbackEngine
    from tests.cli.conftest import Shell

Configured = Callable[..., str]

BLIND = "one does not say which weights it serves: if they are swapped under the same name, "
BLIND += "the lock sees it by its canaries alone, from 0.005 nats on\n"
"""Said of a server that reports no digest and gives logprobs."""


BIRDS = "  canaries: 12 with logprobs, the same up to 0.005 nats\n"


def locked(shell: Shell) -> dict[str, Locked]:
    entries = lockfile.read(shell.path / NAME)
    assert entries is not None
    return entries


def llamacpp(shell: Shell, **kwargs: object) -> LoopbackEngine:
    return shell.engine(poses_as="llamacpp", **kwargs)


def test_what_every_engine_is_is_shown_and_written(shell: Shell, configured: Configured) -> None:
    shell.configure(configured(one=llamacpp(shell, quantization="Q4_0"), two=shell.engine(poses_as="vllm")))

    ended = shell.run("lock")

    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("one: new\n")
    assert "  quantization: Q4_0 (reported)\n" in ended.out
    assert ended.out.endswith(f"wrote {shell.path / NAME}\n")
    assert {name: entry.kind for name, entry in locked(shell).items()} == {"one": "llamacpp", "two": "vllm"}
    assert "127.0.0.1" not in (shell.path / NAME).read_text()


@pytest.mark.parametrize(("verb", "code"), [("lock", 1), ("serve", 4)])
def test_what_to_install_comes_from_where_this_package_came(
    verb: str, code: int, shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    clone = tmp_path_factory.mktemp("clone")
    origin = {"url": clone.as_uri(), "dir_info": {"editable": True}}
    installed_from(origin, tmp_path_factory.mktemp("packages"), monkeypatch)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # nor is uv a module here
    shell.configure("[engines.a]\nkind = 'vllm'\nmodel = 'm'\nrequires = ['vllm==0.1']\n")

    ended = shell.run(verb)

    assert ended.code == code
    assert f'Install it with: pip install -e "{clone}[environments]"  (or: pip install uv)\n' in ended.err


def test_an_engine_that_is_as_it_was_changes_no_byte(shell: Shell, configured: Configured) -> None:
    shell.configure(configured(one=llamacpp(shell)))
    shell.run("lock")
    older = {"one": dataclasses.replace(locked(shell)["one"], plugin="0.0.1")}
    lockfile.write(shell.path / NAME, older)
    before = (shell.path / NAME).stat().st_mtime_ns

    ended = shell.run("lock")

    assert ended.out == f"one: unchanged (0.0000 nats, 0 of 12 answers part)\n{BIRDS}{BLIND}"
    assert (shell.path / NAME).stat().st_mtime_ns == before


def test_a_lock_that_is_old_is_told_field_by_field_and_check_writes_nothing(
    shell: Shell, configured: Configured
) -> None:
    shell.configure(configured(one=llamacpp(shell, quantization="Q8_0", context_length=9)))
    shell.run("lock")
    entry = dataclasses.replace(locked(shell)["one"], canaries=None)
    facts: dict[str, str | int] = {"quantization": "Q4_0", "context_length": 4096, "kv_cache": "f16"}
    older = {**entry.identity, **{name: Fact(value=value, source="reported") for name, value in facts.items()}}
    lockfile.write(shell.path / NAME, {"one": dataclasses.replace(entry, identity=older), "gone": entry})
    text = (shell.path / NAME).read_text()

    everything, named = shell.run("lock", "--check"), shell.run("lock", "--check", "one")

    assert (everything.code, named.code) == (1, 1)
    assert "gone: removed\n" in everything.out
    assert "gone" not in named.out
    assert named.out.splitlines()[:4] == [
        "one: changed",
        "  quantization: Q4_0 -> Q8_0",
        "  context_length: 4096 -> 9",
        "  kv_cache: f16 -> not told now",
    ]
    assert (shell.path / NAME).read_text() == text


def test_other_weights_behind_the_same_facts_make_a_lock_old(shell: Shell, configured: Configured) -> None:
    engine = llamacpp(shell, answer=saying(2.0))
    shell.configure(configured(one=engine))
    shell.run("lock")
    engine.script = saying(2.3)

    checked = shell.run("lock", "--check")

    assert checked.code == 1
    assert "one: changed\n  canaries: other weights (0.3000 nats, 0 of 12 answers part)\n" in checked.out


def test_an_engine_that_is_not_there_fails_the_command_and_leaves_its_lock(
    shell: Shell, configured: Configured
) -> None:
    shell.configure(configured(up=llamacpp(shell), down=shell.engine(api_key="0123456789abc")))
    before = Locked(kind="llamacpp", plugin="0.0.1", identity={}, launch={})
    lockfile.write(shell.path / NAME, {"down": before})

    ended = shell.run("lock")

    assert ended.code == 1
    assert ended.err.startswith("llmparity: down refused the key: GET ")
    assert locked(shell)["down"] == before
    assert "up" in locked(shell)


@pytest.mark.slow
def test_what_changed_is_said_field_by_field(shell: Shell, configured: Configured) -> None:
    shell.configure(configured(one=llamacpp(shell, quantization="Q4_0"), two=llamacpp(shell)))
    shell.run("lock")
    shell.configure(configured(one=llamacpp(shell, quantization="Q8_0", context_length=9), two=llamacpp(shell)))

    ended = shell.run("lock", "one")

    lines = ended.out.splitlines()
    assert lines[:3] == ["one: changed", "  quantization: Q4_0 -> Q8_0", "  context_length: 4096 -> 9"]
    assert "two" not in ended.out
    assert locked(shell)["one"].identity["quantization"].value == "Q8_0"
    assert "two" in locked(shell)


@pytest.mark.slow
@pytest.mark.parametrize(("named", "gone"), [((), True), (("one",), False)])
def test_engines_the_project_has_no_more_go_when_all_of_it_is_locked(
    shell: Shell, configured: Configured, named: tuple[str, ...], gone: bool
) -> None:
    engine = llamacpp(shell)
    shell.configure(configured(one=engine, two=engine))
    shell.run("lock")
    shell.configure(configured(one=engine))

    ended = shell.run("lock", *named)

    assert ("two: removed" in ended.out) == gone
    assert ("two" not in locked(shell)) == gone


@pytest.mark.slow
def test_check_writes_nothing_and_fails_when_the_lock_is_old(shell: Shell, configured: Configured) -> None:
    shell.configure(configured(one=llamacpp(shell, quantization="Q4_0")))

    assert shell.run("lock", "--check").code == 1
    assert not (shell.path / NAME).exists()

    shell.run("lock")
    assert shell.run("lock", "--check").code == 0

    text = (shell.path / NAME).read_text()
    shell.configure(configured(one=llamacpp(shell, quantization="Q8_0")))
    ended = shell.run("lock", "--check")
    assert (ended.code, ended.out) == (1, f"one: changed\n  quantization: Q4_0 -> Q8_0\n{BIRDS}{BLIND}")
    assert ended.err == (
        "llmparity: llmparity.lock is old: one changed. If that is meant, run the same command without --check and "
        "commit the file; if not, give one back the version, weights and settings that stand there\n"
    )
    assert (shell.path / NAME).read_text() == text


def test_check_says_what_to_do_where_nothing_is_locked_yet(shell: Shell, configured: Configured) -> None:
    shell.configure(configured(one=llamacpp(shell)))

    ended = shell.run("lock", "--check")

    assert (ended.code, ended.err) == (
        1,
        "llmparity: llmparity.lock has no engine yet: run the same command without --check and commit the file\n",
    )
    assert not (shell.path / NAME).exists()


def test_an_engine_that_check_does_not_find_in_the_lock_is_told_as_that_and_not_as_one_without_answers(
    shell: Shell, configured: Configured
) -> None:
    """Its canaries were not asked, so nothing is said of them; the command enters it into the same lock."""
    shell.configure(configured(one=llamacpp(shell)))
    url = llamacpp(shell).base_url

    ended = shell.run("lock", "--check", "--rootdir", ".", "one", f"two={url}")

    told = [line for line in ended.out.splitlines() if not line.startswith(" ")]
    assert told[0] == "one: not in llmparity.lock; llmparity lock --rootdir . one enters it"
    assert f"two: not in llmparity.lock; llmparity lock --rootdir . two={url} enters it" in told
    assert "  build: b0-loopback (reported)\n" in ended.out
    assert "canaries: " not in ended.out
    assert "the lock does not see it" not in ended.out
    assert ended.code == 1


def test_check_says_what_to_do_about_engines_that_came_and_went(shell: Shell, configured: Configured) -> None:
    engine = llamacpp(shell)
    shell.configure(configured(one=engine, two=engine))
    shell.run("lock")
    shell.configure(configured(three=engine, four=engine))

    ended = shell.run("lock", "--check")

    assert (ended.code, ended.err) == (
        1,
        "llmparity: llmparity.lock is old: it has no four and no three; one and two are not configured any more. If "
        "that is meant, run the same command without --check and commit the file\n",
    )


@pytest.mark.slow
def test_a_fact_that_is_not_told_now_is_shown_and_makes_no_lock_old(shell: Shell, configured: Configured) -> None:
    shell.configure(configured(one=llamacpp(shell)))
    shell.run("lock")
    more = {**locked(shell)["one"].identity, "kv_cache": Fact(value="f16", source="reported")}
    lockfile.write(shell.path / NAME, {"one": dataclasses.replace(locked(shell)["one"], identity=more)})

    ended = shell.run("lock", "--check")

    assert (ended.code, ended.out) == (
        0,
        f"one: tells less than it did\n  kv_cache: f16 -> not told now\n{BIRDS}{BLIND}",
    )


def test_an_engine_that_tells_less_is_told_as_that(capsys: pytest.CaptureFixture[str]) -> None:
    version, cache = Fact(value="1", source="reported"), Fact(value="f16", source="reported")
    before = Locked(kind="llamacpp", plugin="1", identity={"version": version, "kv_cache": cache})
    after = dataclasses.replace(before, identity={"version": version})

    _tell("one", before, after, differences(before, after), None)

    assert capsys.readouterr().out.startswith("one: tells less than it did\n  kv_cache: f16 -> not told now\n")


@pytest.mark.slow
def test_an_engine_that_is_not_there_leaves_its_lock_and_no_other_untouched(
    shell: Shell, configured: Configured
) -> None:
    shell.configure(configured(up=llamacpp(shell, quantization="Q4_0"), down=llamacpp(shell)))
    shell.run("lock")
    before = locked(shell)
    shell.configure(configured(up=llamacpp(shell, quantization="Q8_0"), down=shell.engine(api_key="0123456789abc")))

    ended = shell.run("lock")

    assert ended.code == 1
    assert ended.err.startswith("llmparity: down refused the key: GET ")
    assert "Set api_key_env" in ended.err
    assert locked(shell)["down"] == before["down"]
    assert locked(shell)["up"].identity["quantization"].value == "Q8_0"


def test_an_engine_that_is_not_as_pinned_is_not_locked(shell: Shell, configured: Configured) -> None:
    shell.configure(configured(one=llamacpp(shell, quantization="Q4_0")) + "pin.quantization = 'F16'\n")

    ended = shell.run("lock")

    assert ended.code == 1
    assert "quantization is pinned to F16 but the server has Q4_0" in ended.err
    assert not (shell.path / NAME).exists()


def test_a_secret_is_refused_with_its_field(
    shell: Shell, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "0123456789-secret")
    shell.configure(
        configured(one=shell.engine(model="tuned-0123456789-secret", api_key="0123456789-secret"))
        + "api_key_env = 'KEY'\n"
    )

    ended = shell.run("lock")

    assert ended.code == 1
    assert "engines.one.identity.model holds the value of a key variable" in ended.err
    assert "0123456789-secret" not in ended.err + ended.out


def test_a_frozen_environment_does_not_keep_the_lock_from_being_renewed(
    shell: Shell, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMPARITY_FROZEN", "1")
    shell.configure(configured(one=llamacpp(shell)))

    assert shell.run("lock").code == 0


def test_a_damaged_lock_is_not_overwritten(shell: Shell, configured: Configured) -> None:
    shell.configure(configured(one=llamacpp(shell)))
    (shell.path / NAME).write_text("format = ")

    ended = shell.run("lock")

    assert ended.code == 4
    assert "is no lock file" in ended.err
    assert (shell.path / NAME).read_text() == "format = "


FAKE = """
[engines.{name}]
kind = "llamacpp"
model = "{model}"
command = ["{python}", "{fake}"]
context_length = 512
args = {args}
env = {{ FAKE_STARTS = "{{starts}}", FAKE_BEHAVIOUR = "" }}
"""


@pytest.mark.slow
def test_engines_are_started_and_what_sets_two_of_them_apart_is_said(shell: Shell) -> None:
    root = Path(__file__).parents[2]
    fake = shell.path / "fake_engine.py"
    fake.write_text(
        f"import runpy\n\nrunpy.run_path({str(root / 'tests/plugin/fake_engine.py')!r}, run_name='__main__')\n"
    )
    tables = [
        FAKE.format(
            name=name,
            model=root / "fixtures/models/tiny/tiny-Q4_0.gguf",
            python=sys.executable,
            fake=fake,
            args=args,
        ).replace("{starts}", str(shell.path / "starts"))
        for name, args in (("plain", "[]"), ("fast", '["--threads", "2"]'))
    ]
    shell.configure("".join(tables))
    argv = [sys.executable, "-m", "pytest_llmparity", "lock"]

    ended = subprocess.run(argv, cwd=shell.path, capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert "plain and fast say the same of themselves; they differ in args (none and --threads 2)" in ended.stdout
    entry = locked(shell)["fast"]
    assert entry.launch["model"] == "tiny-Q4_0.gguf"
    assert entry.launch["command"] == (Path(sys.executable).name, "{root}/fake_engine.py")
    assert entry.launch["env"] == ("FAKE_BEHAVIOUR", "FAKE_STARTS")
    assert entry.identity["tensor_types"].source == "file"
    assert "slots" not in entry.identity
    assert str(shell.path) not in (shell.path / NAME).read_text()


def saying(lead: float, text: str = "all is well in the harbour") -> Callable[[Mapping[str, Any]], Reply]:
    return lambda request: Reply(text=text, lead=lead)


@pytest.mark.slow
def test_canaries_are_kept_and_tell_other_weights_behind_the_same_facts(shell: Shell, configured: Configured) -> None:
    engine = llamacpp(shell, answer=saying(2.0))
    shell.configure(configured(one=engine))
    assert shell.run("lock").code == 0
    kept = locked(shell)["one"].canaries
    assert kept is not None
    assert (len(kept.answers), kept.logprobs, kept.floor, kept.unstable) == (12, True, 0.0, 0)
    text = (shell.path / NAME).read_text()

    engine.script = saying(2.3)
    checked = shell.run("lock", "--check")
    assert (checked.code, (shell.path / NAME).read_text()) == (1, text)
    assert checked.out == f"one: changed\n  canaries: other weights (0.3000 nats, 0 of 12 answers part)\n{BLIND}"
    assert shell.run("lock").code == 0
    renewed = shell.run("lock", "--check")

    assert renewed.out == f"one: unchanged (0.0000 nats, 0 of 12 answers part)\n{BIRDS}{BLIND}"
    assert (shell.path / NAME).read_text() != text


def test_canaries_that_cannot_be_compared_are_no_change(shell: Shell, configured: Configured) -> None:
    shell.configure(configured(one=llamacpp(shell)))
    assert shell.run("lock").code == 0
    shell.configure(configured(one=llamacpp(shell, abilities=Abilities(logprobs="refused"))))

    checked = shell.run("lock", "--check")

    assert checked.out.startswith(
        "one: not comparable\n  canaries: not comparable (the lock has logprobs, and half of the answers or more"
    )
    assert (checked.code, "changed" in checked.out + checked.err, "give one back" in checked.err) == (1, False, False)
    assert "what llmparity.lock has of one could not all be compared" in checked.err
    assert "llmparity doctor says what an engine gives now" in checked.err


def test_without_logprobs_the_lock_says_what_its_canaries_cannot_see(shell: Shell, configured: Configured) -> None:
    shell.configure(configured(one=llamacpp(shell, abilities=Abilities(logprobs="refused"))))

    ended = shell.run("lock")

    kept = locked(shell)["one"].canaries
    assert kept is not None
    assert (len(kept.answers), kept.logprobs) == (12, False)
    assert "  canaries: 12 without logprobs, the same while 1 at most part\n" in ended.out
    assert "by its canaries alone, and without logprobs only where 2 or more of 12 answers part" in ended.out


@pytest.mark.slow
def test_an_engine_without_logprobs_that_never_answers_alike_has_no_canaries(
    shell: Shell, configured: Configured
) -> None:
    count = itertools.count()
    restless = llamacpp(
        shell, abilities=Abilities(logprobs="refused"), answer=lambda request: f"well, {next(count)} it is"
    )
    shell.configure(configured(one=restless))

    first = shell.run("lock")
    text = (shell.path / NAME).read_text()
    again = shell.run("lock")

    assert locked(shell)["one"].canaries is None
    assert "without logprobs and never alike" in first.out
    assert (again.code, (shell.path / NAME).read_text()) == (0, text)


def test_an_answer_with_a_path_of_a_machine_or_a_key_is_not_kept(
    shell: Shell, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "0123456789-secret")

    def answer(request: Mapping[str, Any]) -> str:
        prompt = str(request.get("messages"))
        told = "see /home/somebody/models" if "fox" in prompt else "key 0123456789-secret" if "rain" in prompt else ""
        return told or "all is well"

    shell.configure(
        configured(one=llamacpp(shell, answer=answer, api_key="0123456789-secret")) + "api_key_env = 'KEY'\n"
    )

    ended = shell.run("lock")

    kept = locked(shell)["one"].canaries
    assert ended.code == 0
    assert "one: canaries that are not kept, because their answer holds a key or a path: " in ended.out
    assert kept is not None
    assert len(kept.answers) == 10
    assert "somebody" not in (shell.path / NAME).read_text()
    assert "0123456789" not in (shell.path / NAME).read_text()


def test_an_engine_that_only_thinks_has_no_canaries_and_the_lock_says_that_it_is_blind(
    shell: Shell, configured: Configured
) -> None:
    thinking = Reply(text="", reasoning="hmm hmm hmm", finish_reason="length")
    shell.configure(configured(one=llamacpp(shell, answer=thinking)))

    ended = shell.run("lock")

    assert ended.code == 0
    assert locked(shell)["one"].canaries is None
    assert "if they are swapped under the same name, the lock does not see it" in ended.out

"""Wrong values of the environment: each command says so in one line, and ends with 2, before anything is begun."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # importing all of scml says this and that about other libraries
    utils = pytest.importorskip("scml.utils")

from resilient_exec.adapters.negmas import settings
from resilient_exec.cli import main
from resilient_exec.cli.scml import check

NOT_A_NUMBER = ("many", "1,5", "0x10", "nan", "-1", "3 4", "--", "\udcff", "two\nlines", "9" * 400 + "x")
WRONG = {
    "WORKERS": (*NOT_A_NUMBER, "0", "1.5", "inf"),
    "TIMEOUT": (*NOT_A_NUMBER, "0", "1e300"),
    "START_TIMEOUT": (*NOT_A_NUMBER, "0", "none", "inf"),
    "MEMORY_LIMIT": (*NOT_A_NUMBER, "0", "1000", "2 GiBi", "9" * 400, "99999999999TiB"),
    "RETRIES": (*NOT_A_NUMBER, "0.5", "inf"),
    "TASKS_PER_WORKER": (*NOT_A_NUMBER, "0", "none"),
    "FRESH_PROCESS": (*NOT_A_NUMBER, "2", "maybe", "none"),
    "PRELOAD": (*NOT_A_NUMBER, "2", "maybe"),
    "MARKER_WAIT": (*NOT_A_NUMBER, "inf", "none"),
    "OUTPUT": ("away", "none", "1", "\udcff"),
    "OUTPUT_LIMIT": (*NOT_A_NUMBER, "16 MiBi"),
    "SEED": (*NOT_A_NUMBER, "1.5", "9" * 5000),
    "VERIFY": (*NOT_A_NUMBER, "1.5", "all"),
    "STEP_TIMEOUT": (*NOT_A_NUMBER, "0"),
    "DISQUALIFY_AFTER": (*NOT_A_NUMBER, "0", "never"),
    "RETRY_FAILED": (*NOT_A_NUMBER, "2", "maybe"),
    "TAKE_OVER": (*NOT_A_NUMBER, "2", "maybe"),
}
COMMANDS = {
    "run": ["run", "script.py"],
    "scml": ["scml", "oneshot"],
    "resume": ["scml", "std", "--resume", "--output", "night"],
    "check": ["scml", "check", "my_agents:Mine"],
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "script.py").write_text("open('begun', 'w')")
    (tmp_path / "my_agents.py").write_text("open('begun', 'w')")
    monkeypatch.chdir(tmp_path)
    for begin in ("anac2024_oneshot", "anac2024_std"):
        monkeypatch.setattr(utils, begin, lambda *_, **__: pytest.fail("a tournament was begun"))
    monkeypatch.setattr(check, "_probe", lambda *_: pytest.fail("an agent was tried"))
    return tmp_path


def status_of(command):
    try:
        return main(command)
    except SystemExit as ended:
        return ended.code


def test_every_variable_is_tried():
    assert {f"RESILIENT_EXEC_{name}" for name in WRONG} == set(settings._ENVIRONMENT)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_told_in_one_line_before_anything_begins(name, command, folder, monkeypatch, capsys):
    variable = f"RESILIENT_EXEC_{name}"
    for value in WRONG[name]:
        monkeypatch.setenv(variable, value)

        assert status_of(COMMANDS[command]) == 2, value

        out, err = capsys.readouterr()
        (line,) = err.splitlines()
        assert out == ""
        assert line.startswith(f"resilient-exec: {variable}={value[:60]!r}")
        assert ": must be " in line
        assert f"; unset it, or set another value, such as {variable}=" in line
        assert len(line) < 400
    assert sorted(path.name for path in folder.iterdir()) == ["my_agents.py", "script.py"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_misspelt_variable_is_told_in_one_line_before_anything_begins(command, folder, monkeypatch, capsys):
    monkeypatch.setenv("RESILIENT_EXEC_TIMOUT", "300")

    assert status_of(COMMANDS[command]) == 2

    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert "RESILIENT_EXEC_TIMOUT is not read by anything" in err


@pytest.mark.parametrize("command", ["scml", "check"])
def test_a_verification_without_a_seed_is_refused_before_anything_begins(command, folder, monkeypatch, capsys):
    monkeypatch.setenv("RESILIENT_EXEC_VERIFY", "3")

    assert status_of(COMMANDS[command]) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert "RESILIENT_EXEC_VERIFY" in line
    assert "--seed" in line
    assert len(list(folder.iterdir())) == 2


def test_a_process_of_its_own_ends_with_2_and_no_traceback(folder):
    """What the other tests see in this process, where the adapter is imported already."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "resilient_exec", "run", "script.py"],
        env={**os.environ, "RESILIENT_EXEC_TIMEOUT": "soon"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert not (folder / "begun").exists()


@pytest.mark.slow
def test_what_the_script_itself_gives_is_its_own_affair(folder):
    """Nobody tells it that it was a variable of the environment."""
    (folder / "script.py").write_text(
        "from resilient_exec.adapters.negmas import options\nprint('begun')\noptions(timeout=-1)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "resilient_exec", "run", "script.py"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout) == (1, "begun\n")
    assert "ValueError: timeout=-1: must be a number of seconds" in done.stderr


def test_the_commands_know_each_variable_that_tournaments_do(monkeypatch):
    from resilient_exec.cli import pool_options

    for name in settings._ENVIRONMENT:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("RESILIENT_EXEC_OF_SOMEBODY_ELSE", "1")
    assert set(pool_options.given_by_environment()) == set(settings._ENVIRONMENT)

"""``resilient-exec scml check``: the fate of an agent, in plain words."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("negmas")

from resilient_exec.adapters.negmas.blame.health import Health
from resilient_exec.adapters.negmas.blame.notes import OnStage
from resilient_exec.adapters.negmas.report.report import Report
from resilient_exec.adapters.negmas.report.task_report import TaskReport
from resilient_exec.cli import main
from resilient_exec.cli.scml.check import verdicts

ME = "mine.Mine"

AGENTS = """
import os, time
from pathlib import Path
from scml.oneshot.agents import RandomOneShotAgent

FIRST = Path(__file__).with_name("first")

class Fine(RandomOneShotAgent):
    pass

class Bad(RandomOneShotAgent):
    def before_step(self):
        super().before_step()
        print("x" * 12_000_000)
        time.sleep(0.6)
        if self.awi.current_step == 1 and dies_in(self.awi._world.name):
            os._exit(7)

def dies_in(world):  # the one that is the first to ask, whenever it asks
    try:
        with FIRST.open("x") as file:
            file.write(world)
    except FileExistsError:
        pass
    return FIRST.read_text() == world
"""


def report(*tasks):
    return Report(kind="worlds", name="t", folder=None, planned=len(tasks), tasks=tasks)


def lost(fault, history, competitor=ME):
    who = OnStage(competitor, "m@1", "respond", 3, attempt=1, fault=fault)
    return TaskReport(name="w", status="failed", attempts=1, history=(history,), reason=history, on_stage=(who,))


@pytest.mark.parametrize(
    ("fault", "word"), [("timed_out", "hangs"), ("died", "dies"), ("out_of_memory", "grows"), ("raised", "raises")]
)
def test_each_fate_has_its_word(fault, word):
    (said,) = verdicts(ME, Health(ME), report(lost(fault, "what happened")), None)
    assert said == f"{word} in respond at step 3, in one of 1 worlds at least: what happened"


def test_what_is_not_its_doing_is_not_said_to_be():
    (said,) = verdicts(ME, Health(ME), report(lost("died", "died: SIGKILL", "other.Agent")), None)
    assert said == "had a world fail, though it was not seen on stage: died: SIGKILL"


def test_slow_steps_exceptions_and_floods_are_told():
    row = Health(ME, steps=10, slow_steps=4, wall_worst=3.25, exceptions=2)
    said = verdicts(ME, row, report(TaskReport(name="w", printed=50 << 20)), 2.0)
    assert said == [
        "raises: 2 exceptions in worlds that went on without its answers",
        "is slow: 4 of 10 steps took longer than 2 s, the longest 3.2 s",
        "prints: 50 MiB in one world",
    ]


def test_a_healthy_agent_has_nothing_said_against_it():
    assert verdicts(ME, Health(ME, worlds=2, scored=2), report(TaskReport(name="w", printed=10)), 1.0) == []


@pytest.mark.parametrize(
    ("arguments", "words"), [(["Mine"], "MODULE:CLASS"), (["a:B", "c:D"], "one agent"), ([], "one")]
)
def test_check_takes_one_agent(arguments, words, capsys):
    assert main(["scml", "check", *arguments]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_an_agent_that_cannot_be_imported_is_told_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_agent.py").write_text("import no_such_module_anywhere")
    assert main(["scml", "check", "broken_agent:Mine"]) == 1
    assert "cannot be imported: broken_agent raises ModuleNotFoundError" in capsys.readouterr().out


@pytest.mark.slow
def test_worlds_that_scml_cannot_make_are_refused(capsys):
    assert main(["scml", "check", "scml.std.agents:GreedyStdAgent", "--steps", "4"]) == 2
    assert "--steps is 4, but std needs 5 or more" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "status", "words"),
    [("Fine", 0, ["fine"]), ("Bad", 1, ["dies in before_step at step 1", "exit code 7", "is slow", "prints: "])],
)
def test_an_agent_is_tried_in_small_worlds(tmp_path, name, status, words):
    (tmp_path / "mine.py").write_text(AGENTS)
    command = [sys.executable, "-W", "ignore", "-m", "resilient_exec", "scml", "check", f"mine:{name}"]
    limits = ["--steps", "3", "--configs", "1", "--step-timeout", "0.5", "--timeout", "30"]
    done = subprocess.run([*command, *limits], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    for word in words:
        assert word in done.stdout
    assert len(done.stdout) < 10_000

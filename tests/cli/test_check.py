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
from resilient_exec.cli.scml import verdict

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


def report(*tasks, planned=None):
    return Report(kind="worlds", name="t", folder=None, planned=planned or len(tasks), tasks=tasks)


def lost(fault, reason, competitor=ME, **fields):
    who = OnStage(competitor, "m@1", "respond", 3, attempt=1, fault=fault, place="mine.py:41")
    return TaskReport(
        name="w", status="failed", attempts=1, history=(reason,), reason=reason, on_stage=(who,), **fields
    )


def problems(row, told):
    return verdict.problems_of(ME, row, told, 2.0, 30.0)


@pytest.mark.parametrize(
    ("fault", "words", "remedy"),
    [
        ("timed_out", "hangs", "a world has 30 s (--timeout)"),
        ("died", "ends its process", "faulthandler"),
        ("out_of_memory", "takes too much memory", "grows with each step"),
        ("raised", "raises", "catch it there"),
    ],
)
def test_each_fault_has_its_words_its_place_its_share_of_the_worlds_and_a_remedy(fault, words, remedy):
    (found,) = problems(Health(ME), report(*[lost(fault, "what happened")] * 4))
    assert found.what == f"{words} in respond (mine.py:41) at step 3, in 4 of 4 worlds: what happened"
    assert remedy in found.remedy


def test_what_is_not_its_doing_is_not_said_to_be():
    (found,) = problems(Health(ME), report(lost("died", "its worker was killed by SIGKILL", "other.Agent"), planned=2))
    assert found.what == (
        "had a world fail in 1 of 2 worlds, though it was not seen on stage, and other.Agent was on stage: its "
        "worker was killed by SIGKILL"
    )


def test_of_an_exception_the_agents_own_line_and_the_message_are_shown():
    trace = """Traceback (most recent call last):
  File "/x/scml/world.py", line 1638, in simulation_step
    a.before_step()
  File "/home/me/mine.py", line 40, in before_step
    self.think()
  File "/home/me/mine.py", line 41, in think
    raise ValueError("no weights")
ValueError: no weights
"""
    (found,) = problems(Health(ME), report(lost("raised", "it raised ValueError: no weights", traceback=trace)))
    assert found.evidence == (
        '  File "/home/me/mine.py", line 41, in think',
        '    raise ValueError("no weights")',
        "ValueError: no weights",
    )


def test_of_a_hang_the_stack_is_shown_down_to_the_agents_own_line():
    stacks = """Thread of the task (most recent call first):
  File "/x/numpy/linalg.py", line 3 in solve
  File "/home/me/mine.py", line 41 in respond
  File "/x/negmas/world.py", line 9 in step
"""
    (found,) = problems(Health(ME), report(lost("timed_out", "it was still running", stacks=stacks)))
    assert found.evidence == tuple(stacks.splitlines()[:3])


def test_slow_steps_exceptions_and_floods_are_told():
    row = Health(ME, steps=10, slow_steps=4, wall_worst=3.25, cpu_worst=0.01, exceptions=2)
    found = problems(row, report(TaskReport(name="w", printed=50 << 20, log="/x/output.txt")))
    assert [problem.what for problem in found] == [
        "raises 2 exceptions in worlds that went on without its answers",
        "is slow: 4 of 10 steps took longer than 2 s (--step-timeout), the longest 3.2 s",
        "prints at least 50 MiB in one world",
    ]
    assert "waits more than it computes" in found[1].remedy
    assert found[2].files == ("/x/output.txt",)
    (busy,) = problems(Health(ME, steps=10, slow_steps=4, wall_worst=3.25, cpu_worst=3.1), report())
    assert "CPU time" in busy.remedy


def test_a_healthy_agent_has_nothing_said_against_it_and_its_wall_time_stands_beside_its_cpu_time():
    row = Health(ME, worlds=2, scored=2, steps=9, cpu_median=0.001, wall_median=3.0, wall_worst=3.5)
    told = report(TaskReport(name="w", printed=10), TaskReport(name="v"))
    assert problems(row, told) == []
    shown = dict(verdict.figures(row, told))
    assert shown["worlds"] == "2 of 2 scored"
    assert shown["wall time a step"].startswith("3000.0 ms median")
    assert shown["CPU time a step"].startswith("1.0 ms median")


def test_an_agent_in_no_world_is_a_problem():
    (found,) = problems(None, report())
    assert "did not play" in found.what


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["Mine"], "MODULE:CLASS"), (["a:B", "c:D"], "one agent"), ([], "one"), (["json:JSONDecoder"], "not an agent")],
)
def test_check_takes_one_agent(arguments, words, capsys):
    assert main(["scml", "check", *arguments]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import no_such_module_anywhere", "raises ModuleNotFoundError"),
        ("import sys; sys.exit(0)", "ends the program"),
        ("import os; os._exit(3)", "ended with status 3"),
    ],
)
def test_an_agent_that_cannot_be_imported_is_told_so(text, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_agent.py").write_text(text)
    assert main(["scml", "check", "broken_agent:Mine"]) == 1
    out = capsys.readouterr().out
    assert "PROBLEM: cannot be imported: importing broken_agent " in out
    assert words in out
    assert out.endswith("FAIL: 1 problem\n")


@pytest.mark.slow
def test_worlds_that_scml_cannot_make_are_refused(capsys):
    assert main(["scml", "check", "scml.std.agents:GreedyStdAgent", "--steps", "4"]) == 2
    assert "--steps is 4, but std needs 5 or more" in capsys.readouterr().err


def check(folder, *arguments):
    command = [sys.executable, "-W", "ignore", "-m", "resilient_exec", "scml", "check", *arguments]
    limits = ["--steps", "3", "--configs", "1", "--step-timeout", "0.5", "--timeout", "30"]
    return subprocess.run([*command, *limits], cwd=folder, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.slow
def test_a_fine_agent_is_told_that_no_problem_was_found_and_leaves_nothing(tmp_path):
    (tmp_path / "mine.py").write_text(AGENTS)
    done = check(tmp_path, "mine:Fine", "--seed", "7", "--verify", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "mine:Fine"
    assert "2 of 2 scored" in done.stdout
    assert "of 1 worlds that were run twice had the same scores" in done.stdout
    assert done.stdout.endswith("no problem found\n")
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["mine.py"]


def test_a_bad_agent_is_told_what_where_and_what_to_do_and_its_evidence_is_kept(tmp_path):
    (tmp_path / "mine.py").write_text(AGENTS)
    done = check(tmp_path, "--output", "kept", "mine:Bad")
    assert done.returncode == 1, done.stderr
    for words in (
        "PROBLEM: ends its process in before_step at step 1, in 1 of 2 worlds: its worker",
        "exited with status 7",
        "PROBLEM: is slow: ",
        "it waits more than it computes",
        "PROBLEM: prints at least ",
        "remedy: ",
        "FAIL: 3 problems",
        f"everything about it is kept in {tmp_path / 'kept'}",
    ):
        assert words in done.stdout
    for line in done.stdout.splitlines():
        if line.startswith("  more: "):
            assert (tmp_path / line.removeprefix("  more: ")).is_file()
    assert "xxx" not in done.stdout + done.stderr

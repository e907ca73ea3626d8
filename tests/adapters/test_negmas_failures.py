"""Failures, each told once; how long it will still take; what lies where."""

from __future__ import annotations

import json

import pytest

from resilient_exec.adapters import places
from resilient_exec.adapters.estimate import seconds_left
from resilient_exec.adapters.negmas.blame import stacks
from resilient_exec.adapters.negmas.blame.notes import OnStage
from resilient_exec.adapters.negmas.report.failures import failures
from resilient_exec.adapters.negmas.report.progress import Progress, Running
from resilient_exec.adapters.negmas.report.task_report import FailedAttempt, TaskReport


def lost(who, outcome, history, *, place="", method="step", reason="", signal=None, exitcode=None):
    stage = (OnStage(who, "a", method, 1, attempt=1, fault=outcome, place=place),) if who else ()
    attempt = FailedAttempt(number=1, outcome=outcome, signal=signal, exitcode=exitcode)
    return TaskReport(
        name="w",
        status="failed",
        attempts=1,
        history=(history,),
        reason=reason,
        on_stage=stage,
        failed_attempts=(attempt,),
    )


def words(tasks):
    return [one.words(one.competitor.rpartition(".")[2]) for one in failures(tasks)]


def test_each_kind_of_failure_is_told_once_with_a_count():
    leak = lost("a.Leaks", "out_of_memory", "held 612 MiB, more than 500 MiB", place="a.py:41", method="before_step")
    other = lost("a.Leaks", "out_of_memory", "held 540 MiB, more than 500 MiB", place="a.py:41", method="before_step")
    broken = lost(
        "a.Broken", "raised", "raised ValueError", reason="it raised ValueError: no such file", place="a.py:18"
    )
    tasks = [leak, other, broken, TaskReport(name="s"), leak]
    assert words(tasks) == [
        "Leaks: 3 worlds, out of memory (over 500 MiB) in before_step (a.py:41)",
        "Broken: 1 world, raised ValueError: no such file in step (a.py:18)",
    ]


def test_other_causes_are_other_failures_and_a_hang_is_one_wherever_it_was_seen():
    tasks = [
        lost("a.A", "timed_out", "timed out after 8 s", place="a.py:1"),
        lost("a.A", "timed_out", "timed out after 8 s", place="a.py:9"),
        lost("a.A", "timed_out", "timed out after 8 s", place="a.py:9"),
        lost("a.A", "died", "died: SIGSEGV", signal="SIGSEGV", exitcode=-11),
        lost("a.A", "died", "died: exit code 1", exitcode=1),
        lost("", "died", "died: SIGKILL", signal="SIGKILL", exitcode=-9),
    ]
    assert words(tasks) == [
        "A: 3 worlds, hung (timed out after 8 s) in step (a.py:9)",
        "A: 1 world, killed by SIGSEGV in step",
        "A: 1 world, exited with status 1 in step",
        "nobody known: 1 world, killed by SIGKILL",
    ]


def test_messages_that_differ_in_each_world_are_one_failure():
    tasks = [
        lost("a.A", "raised", "raised KeyError", reason=f"it raised KeyError: {i}", place="a.py:1") for i in range(9)
    ]
    assert words(tasks) == ["A: 9 worlds, raised KeyError: 0 in step (a.py:1)"]


def test_a_ctrl_c_with_many_worlds_to_go_is_two_lines():
    why = "the tournament was ended by Ctrl-C"
    tasks = [TaskReport(name=f"r{i}", status="interrupted", attempts=1, reason=why) for i in range(2)]
    tasks += [TaskReport(name=f"n{i}", status="not run", reason=why) for i in range(113)]
    assert words(tasks) == [f"2 worlds interrupted: {why}", f"113 worlds not run: {why}"]


def test_a_message_with_escape_sequences_and_lines_does_no_harm_to_a_terminal():
    evil = "it raised ValueError: \x1b[2J\x1b]0;mine\x07gone\x07\nand more"
    (said,) = words([lost("a.A", "raised", "raised ValueError", reason=evil)])
    assert said == "A: 1 world, raised ValueError: gone in step"
    (said,) = words([lost("a.A", "raised", "raised ValueError", reason="it raised ValueError: " + "x" * 9999)])
    assert len(said) < 300


@pytest.mark.parametrize(
    ("waiting", "running", "took", "lanes", "limit", "left"),
    [
        (10, [], [], 2, None, None),
        (4, [], [10.0], 2, None, 20.0),
        (5, [], [10.0], 2, None, 30.0),
        (0, [4.0], [10.0], 2, None, 6.0),
        (0, [30.0], [10.0], 2, None, 15.0),
        (0, [30.0], [10.0], 2, 32.0, 2.0),
        (1, [0.0, 0.0], [10.0], 2, None, 20.0),
        (6, [0.0], [10.0, 30.0], 4, None, 40.0),
    ],
)
def test_the_estimate_knows_the_number_of_lanes(waiting, running, took, lanes, limit, left):
    assert seconds_left(waiting, running, took, lanes, limit) == left


def test_progress_lies_in_the_folder_and_is_not_written_all_the_time(tmp_path):
    now = [0.0]
    progress = Progress("worlds", "cup", tmp_path, 5, 2)
    path = tmp_path / "resilient" / "progress.json"
    progress.write(clock=lambda: now[0])
    assert json.loads(path.read_text())["counts"] == {}
    progress.begins(Running("w1", ("a.A",), 1, 100.0, 7))
    progress.write(clock=lambda: now[0])
    assert json.loads(path.read_text())["running"] == []
    now[0] = 5.0
    progress.write(clock=lambda: now[0])
    (one,) = json.loads(path.read_text())["running"]
    assert (one["name"], one["attempt"], one["pid"]) == ("w1", 1, 7)
    progress.settles(TaskReport(name="w1", duration=3.5))
    progress.write(at_once=True, clock=lambda: now[0])
    told = json.loads(path.read_text())
    assert (told["counts"], told["running"], told["took"], told["planned"]) == ({"scored": 1}, [], [3.5], 5)


def test_files_of_earlier_versions_are_still_read_until_there_is_a_new_one(tmp_path):
    (tmp_path / "resilient-report.json").write_text("old")
    assert places.to_read(tmp_path, "report.json").read_text() == "old"
    places.replace(tmp_path, "report.json", "new")
    assert places.to_read(tmp_path, "report.json").read_text() == "new"
    assert [path.name for path in (tmp_path / "resilient").iterdir()] == ["report.json"]
    places.remove(tmp_path, "report.json")
    assert not places.to_read(tmp_path, "report.json").exists()


STACKS = """Current thread 0x1 (most recent call first):
  File "/usr/lib/python3.11/concurrent/futures/thread.py", line 81 in _worker
  File "{stdlib}/threading.py", line 982 in run

Thread 0x2 (most recent call first):
  File "/home/me/mine.py", line 60 in before_step
  File "/x/resilient_exec/adapters/negmas/blame/stage.py", line 198 in perform
  File "/x/site-packages/scml/oneshot/world.py", line 1638 in simulation_step
  File "/x/resilient_exec/adapters/negmas/worlds/task.py", line 79 in run_world_set
  File "/x/resilient_exec/worker/serving.py", line 356 in _call

Thread 0x3 (most recent call first):
  File "{stdlib}/threading.py", line 320 in wait
  File "/x/resilient_exec/worker/main.py", line 10 in watch

Thread 0x4 (most recent call first):
  File "{stdlib}/threading.py", line 320 in wait
  File "/home/me/mine.py", line 7 in background
"""


def test_of_the_stacks_the_one_of_the_task_comes_first_and_idle_threads_of_ours_not_at_all():
    import sysconfig

    text = STACKS.replace("{stdlib}", sysconfig.get_paths()["stdlib"]).replace(
        "/usr/lib/python3.11", sysconfig.get_paths()["stdlib"]
    )
    first, second = stacks.for_people(text).split("\n\n")
    assert first.splitlines() == [
        "Thread of the task (most recent call first):",
        '  File "/home/me/mine.py", line 60 in before_step',
        '  File "/x/site-packages/scml/oneshot/world.py", line 1638 in simulation_step',
    ]
    assert second.startswith("Thread 0x4")

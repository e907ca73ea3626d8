"""What an attempt has started is dead before its worker is told to be gone; and all of it dies with the parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import lane_leavings as leavings
import lane_tasks as tasks
import pytest
from lane_harness import Harness, alive, lines, linux_only, until

from resilient_exec.core.messages import LaneClosed
from resilient_exec.model.task import Raised, Returned

pytestmark = linux_only

LEAVE = {
    "a forked child": (leavings.leave_child, ()),
    "a daemon in a session of its own": (leavings.leave_daemon, ()),
    "a program": (leavings.leave_program, (False,)),
    "a program in a session of its own, whose parent is gone": (leavings.leave_orphaned_program, (False,)),
}


@pytest.mark.parametrize(("leave", "args"), list(LEAVE.values()), ids=list(LEAVE))
@pytest.mark.parametrize("how", ["killed by us", "killed by itself", "killed by others", "ended in peace", "_exit(0)"])
def test_what_a_task_has_left_is_dead_before_its_worker_is_told_to_be_gone(ready, tmp_path, leave, args, how):
    path = str(tmp_path / "pids")
    if how == "ended in peace":
        ready.value(leavings.leave_and, leave, path, *args, "return")
        (left,) = lines(tmp_path / "pids")
        assert alive(left), "it may stay as long as its worker does"
        assert ready.value(tasks.pid) == ready.pid
        ready.stop()
        assert ready.gone() == ""
    else:
        ready.begin(leavings.leave_and, leave, path, *args, how)
        if how == "killed by us":
            until(lambda: len(lines(tmp_path / "pids")) == 2)
            ready.kill()
        if how == "killed by others":
            until(lambda: len(lines(tmp_path / "pids")) == 2)
            os.kill(ready.pid, signal.SIGKILL)
        assert ready.died().exitcode == (0 if how == "_exit(0)" else -signal.SIGKILL)
        left = lines(tmp_path / "pids")[0]
    assert not alive(left)


def test_a_program_with_an_empty_environment_is_found_in_the_tree(ready, tmp_path):
    ready.begin(leavings.leave_and, leavings.leave_program, str(tmp_path / "pids"), True, "killed by us")
    left, _ = until(lambda: len(found := lines(tmp_path / "pids")) == 2 and found)
    ready.kill()
    ready.died()
    assert not alive(left)


def test_an_orphaned_program_with_an_empty_environment_is_found_as_the_workers_foster_child(ready, tmp_path):
    ready.begin(leavings.leave_and, leavings.leave_orphaned_program, str(tmp_path / "pids"), True, "killed by us")
    left, _ = until(lambda: len(found := lines(tmp_path / "pids")) == 2 and found)
    ready.kill()
    ready.died()
    assert not alive(left)


def test_what_was_seen_in_the_tree_is_found_even_when_the_worker_has_died_by_itself(ready, tmp_path):
    ready.begin(leavings.leave_and, leavings.leave_program, str(tmp_path / "pids"), True, "killed by us")
    left, _ = until(lambda: len(found := lines(tmp_path / "pids")) == 2 and found)
    until(lambda: left in {who.pid for who in ready.lane.lease._kin}, "the look at the tree")
    ready.signal(signal.SIGKILL)
    ready.died()
    assert not alive(left)


def test_what_escapes_is_a_program_of_an_environment_of_its_own_that_was_not_seen_before_the_worker_died(
    ready, tmp_path
):
    ready.begin(leavings.wait_then_leave_program_and_die, str(tmp_path / "go"), str(tmp_path / "pid"))
    with ready.held():  # no look at the tree
        (tmp_path / "go").touch()
        until(lambda: not alive(ready.pid))
    ready.died()
    (left,) = lines(tmp_path / "pid")
    assert alive(left)
    os.kill(left, signal.SIGKILL)


def test_a_chain_of_forked_children_is_killed_to_its_last_link(ready, tmp_path):
    ready.begin(leavings.grow_a_chain, str(tmp_path / "pids"), 6)
    pids = until(lambda: len(found := lines(tmp_path / "pids")) == 6 and found)
    ready.kill()
    ready.died()
    assert not any(map(alive, pids))


def test_children_forked_while_the_tree_is_being_killed_are_killed_too(ready, tmp_path):
    ready.begin(leavings.fork_on_and_on, str(tmp_path / "pids"))
    until(lambda: len(lines(tmp_path / "pids")) > 3)
    ready.kill()
    ready.died()
    pids = lines(tmp_path / "pids")
    assert not any(map(alive, pids))


def test_a_forked_child_that_holds_all_descriptors_delays_neither_the_result_nor_the_death(ready, tmp_path):
    assert ready.value(leavings.fork_a_child_that_stays, str(tmp_path / "pid")) == "forked"
    assert ready.value(tasks.double, 2) == 4
    ready.signal(signal.SIGKILL)
    assert ready.gone() == ""
    assert not alive(lines(tmp_path / "pid")[0])
    ready.still_works()


def test_a_forked_child_that_returns_from_the_task_does_not_answer_for_it(ready):
    value = ready.value(leavings.fork_and_return_twice)
    assert value > 0
    until(lambda: not alive(value))
    ready.nothing()
    ready.still_works()
    ready.nothing()


@pytest.mark.parametrize(
    ("leaves", "status"),
    [("exit_with_7", 7), ("exit_with_words", 1), ("exit_plainly", 0), ("raise_plainly", 1), ("return_plainly", 0)],
)
def test_a_forked_child_that_leaves_the_task_ends_with_pythons_status(ready, leaves, status):
    assert ready.value(leavings.status_of_a_child_that, getattr(leavings, leaves)) == status
    ready.still_works()
    ready.nothing()


def test_a_forked_child_that_raises_out_of_the_task_does_not_answer_for_it(ready, tmp_path):
    outcome = ready.outcome(leavings.fork_and_raise_twice, str(tmp_path / "pids"))
    assert isinstance(outcome, Raised)
    (child,) = lines(tmp_path / "pids")
    until(lambda: not alive(child))
    ready.nothing()
    assert ready.value(tasks.pid) == ready.pid


@pytest.mark.parametrize("method", [None, "fork", "spawn", "forkserver"])
def test_multiprocessing_works_inside_a_task(ready, method):
    assert ready.value(leavings.run_multiprocessing, method) == (17, 0)
    assert ready.value(tasks.pid) == ready.pid


def test_a_lane_inside_a_task_is_killed_with_the_task_workers_and_all(ready, tmp_path):
    ready.begin(leavings.run_a_lane_inside, str(tmp_path / "pid"))
    (inner,) = until(lambda: lines(tmp_path / "pid"))
    ready.kill()
    ready.died()
    assert not alive(inner)


def test_a_kill_in_one_lane_leaves_the_others_worker_and_attempt_alone(ready, tmp_path):
    other = Harness()
    try:
        other.start()
        other.begin(tasks.wait_for, str(tmp_path / "go"))
        assert ready.death(tasks.signal_itself, signal.SIGKILL).exitcode == -signal.SIGKILL
        ready.start()
        ready.begin(tasks.spin_for_ever)
        ready.kill()
        ready.died()
        (tmp_path / "go").touch()
        assert other.ended() == Returned("waited")
        assert other.value(tasks.pid) == other.pid
    finally:
        other.end()


def test_a_worker_that_cannot_end_in_peace_for_a_thread_of_a_tasks_is_killed_on_request(ready):
    ready.value(tasks.leave_a_thread_that_never_ends)
    assert ready.value(tasks.double, 1) == 2
    ready.stop()
    ready.answers()
    ready.give_up_stop()
    assert ready.gone() == "it did not end in peace"


def test_a_worker_that_is_stopped_when_it_shall_end_in_peace_is_killed_on_request(ready):
    ready.signal(signal.SIGSTOP)
    ready.stop()
    ready.nothing()
    ready.give_up_stop()
    assert ready.gone() == "it did not end in peace"


def test_closing_a_lane_kills_the_attempt_that_runs_and_what_it_has_started(ready, tmp_path):
    ready.begin(leavings.leave_and, leavings.leave_daemon, str(tmp_path / "pids"), "killed by us")
    until(lambda: len(lines(tmp_path / "pids")) == 2)
    ready.close()
    assert not any(map(alive, lines(tmp_path / "pids")))


def test_abandoning_a_lane_whose_thread_hangs_kills_its_worker_and_what_that_has_started(ready, tmp_path):
    ready.begin(leavings.leave_and, leavings.leave_daemon, str(tmp_path / "pids"), "killed by us")
    until(lambda: len(lines(tmp_path / "pids")) == 2)
    with ready.thread_held():
        ready.do(ready.lane.abandon)
        until(lambda: not any(map(alive, lines(tmp_path / "pids"))))
    assert ready.lane.join(60)


PARENT = """
    import os, sys

    sys.path.insert(0, {here!r})
    import lane_leavings as leavings
    import lane_tasks as tasks
    from lane_harness import Harness

    harness = Harness()
    harness.order_start(*{initializer})
    if {begin}:
        harness.begin_when_ready(tasks.note_then, {path!r}, {task})
    harness.facts.get()
"""


@pytest.mark.parametrize(
    ("initializer", "task"),
    [
        ("()", "tasks.burn_in_c_under_the_gil"),
        ("()", "tasks.ignore_sigterm_and_sleep"),
        ("()", "leavings.become_session_leader"),
        ("(tasks.note_then, {path!r}, tasks.spin_for_ever)", ""),
        ("(tasks.note, {path!r})", ""),
    ],
    ids=["holds the GIL", "ignores SIGTERM", "leads a session", "starts", "is idle"],
)
def test_a_worker_dies_with_its_parent_whatever_it_does(tmp_path, initializer, task):
    path = str(tmp_path / "pid")
    script = tmp_path / "script.py"
    initializer = initializer.format(path=path)
    text = PARENT.format(
        here=os.path.dirname(__file__), path=path, task=task, begin=bool(task), initializer=initializer
    )
    script.write_text(textwrap.dedent(text))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, str(script)], env=environment)
    try:
        (worker,) = until(lambda: lines(tmp_path / "pid"))
        assert alive(worker)
    finally:
        parent.kill()
        parent.wait()
    until(lambda: not alive(worker), "the end of the worker")


def test_a_start_that_is_closed_at_once_leaves_nothing(lane):
    lane.order_start()
    lane.do(lane.lane.close)
    assert lane.expect(LaneClosed) == LaneClosed(0)
    assert lane.facts.empty()

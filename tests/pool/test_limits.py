"""Limits on memory and time, in real processes: who is stopped, with what evidence, and who is left alone."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys

import pool_limits as tasks
import pytest
from cgroups import small_cgroup  # noqa: F401  (a fixture)
from pool_wait import lines, until, wait_lines

from resilient_exec import (
    MemoryLimitExceeded,
    PoolBroken,
    RetryPolicy,
    SoftTimeout,
    TaskTimeout,
    WorkerDied,
    task_context,
)
from resilient_exec.process.memory import Machine
from resilient_exec.supervisor.memory_guard import Pressure

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measured by Linux's own means")
MIB = 1 << 20
NOW = RetryPolicy(memory=1, wait=lambda _: 0.0)


def warmed(pool):
    """With a worker that has imported what tasks are made of, which may take longer than a short limit."""
    assert pool.submit(tasks.time_left).result(60) > 0
    return pool


# -- memory_limit ----------------------------------------------------------------------------------------------------


def test_a_task_that_takes_a_gigabyte_a_second_is_stopped_within_a_quarter_over_its_limit(make_pool):
    """By the kernel's own account of its peak, which no look of ours can miss."""
    pool = make_pool(1, retry=1)
    future = pool.options(memory_limit="1GiB").submit(tasks.take_memory, 1 << 30)
    error = future.exception(60)
    assert isinstance(error, MemoryLimitExceeded)
    assert isinstance(error, MemoryError)
    (report,) = future.dossier.attempts
    assert 1 << 30 < report.peak_memory < 1.25 * (1 << 30)
    assert report.memory[-1][1] > 1 << 30
    assert "in take_memory" in report.stacks


def test_what_a_task_starts_counts_and_what_its_processes_share_counts_once(make_pool):
    """200 MiB that three children share are 200 MiB, and 800 by their resident sets."""
    pool = make_pool(1, retry=1, memory_limit="500MiB")
    assert pool.submit(tasks.share_with_children, 200 * MIB, 3).result(60) == 3
    error = pool.submit(tasks.children_take, 300 * MIB, 3).exception(60)
    assert isinstance(error, MemoryLimitExceeded)


def test_the_neighbour_of_a_task_that_is_stopped_for_its_memory_is_left_alone(make_pool, tmp_path):
    pool = make_pool(2, retry=1)
    here, go = str(tmp_path / "here"), str(tmp_path / "go")
    neighbour = pool.submit(tasks.meet, here, go)
    wait_lines(here, 1)
    assert isinstance(
        pool.options(memory_limit="200MiB").submit(tasks.take_memory, 200 * MIB).exception(60), MemoryLimitExceeded
    )
    open(go, "w").close()
    assert neighbour.result(60) == neighbour.story[2].detail["pid"]
    assert neighbour.attempts == 1


def test_a_memory_limit_has_a_budget_of_its_own(make_pool, tmp_path):
    pool = make_pool(1, retry=NOW, memory_limit="200MiB")
    path = str(tmp_path / "attempts")
    future = pool.submit(tasks.take_memory_until, 2, 200 * MIB, path)
    assert future.result(60) == 2
    assert len(lines(path)) == 2
    assert [report.outcome for report in future.dossier.attempts] == ["out_of_memory", "returned"]


def test_one_huge_allocation_is_refused_by_the_kernel_and_is_the_tasks_own_memory_error(make_pool):
    """Quicker than any look: the backstop. It ends with the attempt, and with the limit."""
    pool = make_pool(1, retry=1)
    limited = pool.options(memory_limit="200MiB")
    error = limited.submit(tasks.allocate, 1 << 40).exception(60)
    assert type(error) is MemoryError
    assert pool.submit(tasks.data_limit).result(60) == tasks.data_limit()
    low, unlimited = limited.submit(tasks.data_limit).result(60)[0], tasks.data_limit()[0]
    assert 1200 * MIB <= low < 3 << 30
    assert low < unlimited or unlimited == -1


def test_without_a_limit_memory_is_only_measured(lone):
    future = lone.options(retry=1).submit(tasks.hold_then_die, 100 * MIB)
    assert isinstance(future.exception(60), WorkerDied)
    assert max(report.peak_memory for report in future.dossier.attempts) > 100 * MIB


def test_what_earlier_tasks_have_left_in_the_worker_is_not_charged_to_the_next(make_pool):
    """Much of it: the task is given another worker.  Less: should both be over the limit together, it is uncharged."""
    pool = make_pool(1, retry=1, memory_limit="400MiB")
    crowded = pool.submit(tasks.leak, 250 * MIB).result(60)
    future = pool.submit(tasks.take, 250 * MIB)
    assert future.result(60) == 1
    assert future.story[2].kind == "lost"
    assert future.dossier.attempts[-1].pid != crowded
    pool.submit(tasks.leak, 150 * MIB).result(60)
    future = pool.submit(tasks.take, 300 * MIB)
    assert future.result(60) == 2
    assert [report.outcome for report in future.dossier.attempts] == ["evicted", "returned"]


def test_a_task_over_its_limit_is_not_excused_by_what_any_worker_holds(make_pool):
    pool = make_pool(1, retry=1, memory_limit="200MiB")
    for _ in range(3):
        pool.submit(tasks.leak, 1).result(60)
        future = pool.submit(tasks.leak_a_little_then_take, 300 * MIB)
        assert isinstance(future.exception(60), MemoryLimitExceeded)
        assert future.attempts == 1


@pytest.mark.parametrize("leave", [tasks.leave_child_that_takes, tasks.leave_child_whose_child_takes])
def test_an_attempt_is_not_charged_for_a_child_that_an_earlier_task_has_left(make_pool, tmp_path, leave):
    pool = make_pool(1, retry=1, memory_limit="300MiB")
    path = str(tmp_path / "begun")
    pool.submit(leave, 600 * MIB, path).result(60)
    assert pool.submit(tasks.begin_and_wait, path, 1.5).result(60) == 1


def test_an_attempt_that_is_over_its_limit_from_the_start_is_stopped(make_pool):
    """By what the initializer has loaded: in any worker there is too much."""
    pool = make_pool(1, retry=1, memory_limit="200MiB", initializer=tasks.leak, initargs=(300 * MIB,))
    assert isinstance(pool.submit(tasks.sleep_for, 60).exception(60), MemoryLimitExceeded)


def test_a_worker_in_which_dead_children_pile_up_is_replaced(make_pool):
    pool = make_pool(1)
    first = pool.submit(tasks.leave_zombies, 100).result(60)
    until(lambda: pool.submit(tasks.leak, 1).result(60) != first)


def test_a_timer_that_a_task_has_left_does_not_strike_the_next(lone):
    lone.submit(tasks.set_timers).result(60)
    assert lone.options(retry=1).submit(tasks.compute_for, 1.0).result(60) == 1.0


def test_a_worker_that_holds_much_between_two_attempts_is_replaced(make_pool):
    pool = make_pool(1, max_memory_per_worker="150MiB")
    first = pool.submit(tasks.leak, 1).result(60)
    assert pool.submit(tasks.leak, 1).result(60) == first
    assert pool.submit(tasks.leak, 200 * MIB).result(60) == first
    second = pool.submit(tasks.leak, 1).result(60)
    assert second != first
    assert pool.submit(tasks.leak, 1).result(60) == second


# -- the machine's memory --------------------------------------------------------------------------------------------


class FakeMachine:
    """Says what memory the machine has: as much as the test wants."""

    def __init__(self):
        self.available = 8 << 30

    def __call__(self):
        return Machine(self.available, 16 << 30)


@pytest.fixture
def machine(monkeypatch):
    fake = FakeMachine()
    monkeypatch.setattr("resilient_exec.pool.engine.Pressure", lambda: Pressure(1 << 30, fake))
    return fake


def test_while_memory_is_low_tasks_run_one_by_one_and_none_is_lost(machine, make_pool, tmp_path):
    kinds = []
    machine.available = 700 * MIB
    pool = make_pool(2, observers=[lambda event: kinds.append(event.kind)])
    path = str(tmp_path / "running")
    futures = [pool.submit(tasks.run_alone, path) for _ in range(5)]
    until(lambda: "memory_low" in kinds)
    assert [future.result(60) for future in futures[1:]] == [True] * 4  # the first was sent before memory was looked at
    assert futures[0].exception(60) is None
    machine.available = 8 << 30
    pool.submit(tasks.meet, str(tmp_path / "a"), str(tmp_path / "go"))
    until(lambda: "memory_ok" in kinds)
    pool.submit(tasks.meet, str(tmp_path / "b"), str(tmp_path / "go"))
    wait_lines(tmp_path / "a", 1)
    wait_lines(tmp_path / "b", 1)
    open(tmp_path / "go", "w").close()


def test_when_memory_runs_out_the_youngest_goes_uncharged_and_comes_back(machine, make_pool, tmp_path):
    pool = make_pool(2, retry=1)
    go = str(tmp_path / "go")
    old = pool.submit(tasks.meet, str(tmp_path / "old"), go)
    wait_lines(tmp_path / "old", 1)
    young = pool.submit(tasks.meet, str(tmp_path / "young"), go)
    wait_lines(tmp_path / "young", 1)
    machine.available = 300 * MIB
    until(lambda: any(event.kind == "evicted" for event in young.story))
    machine.available = 8 << 30
    wait_lines(tmp_path / "young", 2)
    open(go, "w").close()
    assert young.result(60) != old.result(60)
    assert (old.attempts, young.attempts) == (1, 2)
    assert [report.outcome for report in young.dossier.attempts] == ["evicted", "returned"]
    assert "MiB of memory left" in young.dossier.attempts[0].reason


def test_the_only_attempt_is_never_evicted(machine, make_pool, tmp_path):
    pool = make_pool(2)
    future = pool.submit(tasks.meet, str(tmp_path / "here"), str(tmp_path / "go"))
    wait_lines(tmp_path / "here", 1)
    machine.available = 1
    until(lambda: pool._supervisor.core._admission.level == "critical")
    open(tmp_path / "go", "w").close()
    assert future.result(60)
    assert "evicted" not in [event.kind for event in future.story]


# -- soft_timeout ----------------------------------------------------------------------------------------------------


def test_a_soft_timeout_wakes_a_sleeping_task_which_may_put_things_in_order(lone):
    soft = warmed(lone).options(soft_timeout=0.3, timeout=60)
    told, left = soft.submit(tasks.tidy_up).result(60)
    assert "soft_timeout" in told
    assert 0 < left < 60


def test_a_soft_timeout_that_leaves_the_task_counts_as_a_timeout_and_shows_where_it_was(make_pool):
    retry = RetryPolicy(timeouts=1, wait=lambda _: 0.0)
    pool = make_pool(1, soft_timeout=0.3, retry=retry, preload=("pool_limits",))  # each worker has what tasks need
    future = pool.submit(tasks.sleep_deep_inside)
    error = future.exception(60)
    assert isinstance(error, TaskTimeout)
    assert isinstance(error.__cause__, SoftTimeout)
    assert future.attempts == 2
    pids = {report.pid for report in future.dossier.attempts}
    assert len(pids) == 2, "an import may have been interrupted half-way: nobody else is to find that"
    assert "in deep_inside" in future.dossier.attempts[-1].traceback


def test_a_soft_timeout_that_is_over_before_the_call_is_unpickled_strikes_as_it_begins(lone):
    soft = lone.options(soft_timeout=0.3, timeout=60, retry=1)
    error = soft.submit(tasks.sleep_for, tasks.SlowToArrive()).exception(60)
    assert isinstance(error, TaskTimeout)
    assert isinstance(error.__cause__, SoftTimeout)
    assert re.search(r"before the task's own code began: .* took \d+\.\d s", error.dossier.attempts[0].traceback)


def test_what_a_task_does_to_our_signals_does_not_keep_the_next_one_from_its_soft_timeout(make_pool):
    pool = make_pool(1, preload=("pool_limits",))  # its worker is replaced
    for fn in (tasks.take_handlers_away, tasks.block_all_signals):
        pool.submit(fn).result(60)
        soft = pool.options(soft_timeout=0.3, timeout=60, retry=1)
        assert "soft_timeout" in soft.submit(tasks.tidy_up).result(60)[0]


def test_who_swallows_a_soft_timeout_has_until_the_timeout(make_pool):
    pool = warmed(make_pool(1, retry=1))
    future = pool.options(soft_timeout=0.2, timeout=1).submit(tasks.swallow_everything)
    error = future.exception(60)
    assert isinstance(error, TaskTimeout)
    assert error.__cause__ is None
    kinds = [event.kind for event in future.story]
    assert kinds.index("soft_timeout") < kinds.index("doomed")


@pytest.mark.slow
def test_a_soft_timeout_strikes_nobody_else(make_pool):
    """Tasks that end just when theirs is over: the next ones, on the same worker, are not interrupted."""
    pool = make_pool(1, retry=1)
    short = pool.options(soft_timeout=0.05)
    futures = []
    for _ in range(20):
        futures.append((short.submit(tasks.sleep_for, 0.05), pool.submit(tasks.sleep_for, 0.02)))
    for early, innocent in futures:
        assert innocent.result(60) == 0.02
        assert early.exception(60) is None or isinstance(early.exception(60), TaskTimeout)


def test_a_task_that_has_taken_the_soft_signals_handler_away_is_not_killed_by_it(make_pool):
    pool = make_pool(1, soft_timeout=0.3, timeout=1.5, retry=1)
    error = pool.submit(tasks.forget_handlers).exception(60)
    assert isinstance(error, TaskTimeout), "the signal would have ended the worker"


def test_a_soft_timeout_of_the_users_own_making_is_the_users(lone):
    error = lone.submit(tasks.raise_soft_timeout).exception(60)
    assert type(error) is SoftTimeout


# -- what a task knows -----------------------------------------------------------------------------------------------


def test_a_task_knows_the_time_that_it_has_left(make_pool):
    pool = make_pool(1)
    assert pool.submit(tasks.time_left).result(60) == float("inf")
    assert 50 < pool.options(timeout=60).submit(tasks.time_left).result(60) <= 60
    assert 20 < pool.options(timeout=60, soft_timeout=30).submit(tasks.time_left).result(60) <= 30


def test_outside_a_pool_the_context_is_harmless():
    here = task_context()
    assert (here.key, here.attempt, here.previous_pids, here.time_left()) == (None, 1, (), float("inf"))


@pytest.mark.parametrize("how", ["return", "raise", "exit", "kill", "hang", "write-protect"])
def test_a_scratch_directory_is_removed_with_its_attempt_however_that_ends(make_pool, tmp_path, how):
    pool = make_pool(1, timeout=1 if how == "hang" else 60, retry=1)
    path = str(tmp_path / "told")
    pool.submit(tasks.use_scratch, path, how).exception(60)
    (folder,) = lines(path)
    until(lambda: not os.path.exists(folder))
    assert pool.submit(tasks.use_scratch, path, "return").result(60)
    assert len(set(lines(path))) == 2, "each attempt has its own"


def test_without_a_place_for_a_scratch_directory_the_task_is_told_and_nobody_else(make_pool, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/nowhere/at/all")
    pool = make_pool(1, retry=1)
    assert pool.submit(tasks.time_left).result(60) == float("inf")
    told = pool.submit(tasks.use_scratch_without_a_folder, "/dev/null", "return").exception(60)
    assert isinstance(told, OSError)
    assert pool.submit(tasks.time_left).result(60) == float("inf")


# -- stalls ----------------------------------------------------------------------------------------------------------


def test_a_stalled_attempt_is_reported_with_its_stacks_once_and_runs_on(make_pool, tmp_path, caplog):
    events = []
    pool = make_pool(1, stall_timeout=0.5, observers=[events.append])
    with caplog.at_level(logging.WARNING):
        future = pool.submit(tasks.note_then_wait, str(tmp_path / "here"))
        stalled = until(lambda: [event for event in events if event.kind == "stalled"])
        until(lambda: "in wait_quietly" in caplog.text)
    assert "in wait_quietly" in stalled[0].evidence.stacks
    assert stalled[0].detail["idle"] >= 0.5
    assert not future.done()
    future.kill()
    future.exception(60)
    assert sum(event.kind == "stalled" for event in future.story) == 1


def test_who_computes_or_writes_has_not_stalled(make_pool):
    pool = make_pool(2, stall_timeout=0.4, on_stall="kill", retry=1)
    busy, writes = pool.submit(tasks.compute_for, 1.5), pool.submit(tasks.write_for, 1.5)
    assert busy.result(60) == writes.result(60) == 1.5


def test_a_report_does_not_harm_a_task_that_has_given_its_signal_the_deadly_default(make_pool, tmp_path):
    pool = make_pool(1, stall_timeout=0.4, retry=1)
    future = pool.submit(tasks.unset_stacks_signal_and_wait, str(tmp_path / "here"))
    stalled = until(lambda: [event for event in future.story if event.kind == "stalled"])
    assert stalled[0].evidence.stacks == ""
    assert not future.done()
    future.kill()
    assert "future.kill()" in str(future.exception(60))


def test_a_stalled_attempt_can_be_killed(make_pool):
    pool = make_pool(1, stall_timeout=0.5, on_stall="kill", retry=1)
    future = pool.submit(tasks.wait_quietly)
    error = future.exception(60)
    assert isinstance(error, TaskTimeout)
    assert "used no CPU and did no I/O" in str(error)


def test_a_worker_that_somebody_has_stopped_is_reported_as_stopped_and_left_so(make_pool, tmp_path):
    pool = make_pool(1, stall_timeout=0.4)
    future = pool.submit(tasks.meet, str(tmp_path / "here"), str(tmp_path / "go"))
    pid = int(wait_lines(tmp_path / "here", 1)[0])
    os.kill(pid, signal.SIGSTOP)
    stalled = until(lambda: [event for event in future.story if event.kind == "stalled"])
    assert "stopped" in stalled[0].evidence.remark
    os.kill(pid, signal.SIGCONT)
    open(tmp_path / "go", "w").close()
    assert future.result(60) == pid


# -- output ----------------------------------------------------------------------------------------------------------


def test_captured_output_is_in_the_dossier_of_what_failed(make_pool):
    pool = make_pool(1, output="capture", retry=1)
    future = pool.submit(tasks.speak_then, "die")
    assert isinstance(future.exception(60), WorkerDied)
    (report,) = future.dossier.attempts
    assert report.stdout.splitlines()[-2:] == ["by print", "by a child"]
    assert report.stderr.splitlines()[-1] == "to stderr"
    assert "by a child" in "".join(future.exception().__notes__)
    future = pool.submit(tasks.speak_then, "raise")
    assert isinstance(future.exception(60), ValueError)
    assert not hasattr(future.exception(), "__notes__"), "the user's exception is the user's"
    assert "by a child" in future.dossier.attempts[0].stdout


def test_the_output_of_one_attempt_is_not_taken_for_the_next_ones(make_pool):
    pool = make_pool(1, output="capture", retry=1)
    assert pool.submit(tasks.speak_then, "return").result(60) == "return"
    future = pool.submit(tasks.die_silently)
    assert isinstance(future.exception(60), WorkerDied)
    assert future.dossier.attempts[0].stdout == ""


@pytest.mark.parametrize("output", ["capture", "discard"])
def test_a_flood_blocks_nobody_and_is_not_kept(make_pool, output):
    pool = make_pool(1, output=output, retry=1, timeout=60)
    future = pool.submit(tasks.flood_then_die, 300 * MIB)
    assert isinstance(future.exception(60), WorkerDied)
    (report,) = future.dossier.attempts
    assert len(report.stdout) <= 16 << 10
    assert report.stdout.endswith("the last line\n") is (output == "capture")
    assert (report.stdout == "") is (output == "discard")


def test_inherited_output_goes_where_the_parents_goes(make_pool, capfd):
    pool = make_pool(1, retry=1)
    pool.submit(tasks.speak_then, "return").result(60)
    out, err = capfd.readouterr()
    assert "by print" in out
    assert "to stderr" in err


# -- locks -----------------------------------------------------------------------------------------------------------


def test_with_fresh_locks_an_object_with_a_lock_travels_both_ways(make_pool):
    agent = tasks.Agent()
    with agent.lock:
        back = make_pool(1, fresh_locks=True).submit(tasks.use_and_return, agent).result(60)
    assert back.used == 1
    assert back.lock.acquire(blocking=False)
    assert back.inner is back.lock


def test_without_them_the_path_to_the_lock_is_named(lone):
    error = lone.submit(tasks.use_and_return, tasks.Agent()).exception(60)
    assert "agent.lock is a _thread.lock" in str(error) or "agent.inner is a _thread.lock" in str(error)
    assert "fresh_locks=True" in str(error)


# -- who killed it ---------------------------------------------------------------------------------------------------


def test_a_kill_from_outside_is_called_so_and_nobody_is_accused(make_pool, tmp_path):
    pool = make_pool(1, retry=1)
    future = pool.submit(tasks.meet, str(tmp_path / "here"), str(tmp_path / "never"))
    os.kill(int(wait_lines(tmp_path / "here", 1)[0]), signal.SIGKILL)
    error = future.exception(60)
    assert "killed by SIGKILL" in str(error)
    assert "killed from outside; by whom is not known" in str(error)


def test_a_timeout_is_not_called_a_kill_from_outside(make_pool):
    error = make_pool(1, retry=1, timeout=0.3).submit(tasks.wait_quietly).exception(60)
    assert "outside" not in str(error)


def test_an_error_says_it_in_one_line_and_its_dossier_in_a_note(make_pool):
    future = warmed(make_pool(1, retry=1)).options(label="world 7", timeout=0.3).submit(tasks.wait_quietly)
    error = future.exception(60)
    text = str(error)
    assert "\n" not in text
    for part in ("world 7", "timeout of 0.3 s", "attempt 1 of 1", "dossier"):
        assert part in text
    assert error.__notes__ == [str(error.dossier)]
    assert error.dossier == future.dossier
    assert "in wait_quietly" in error.__notes__[0]


def test_a_start_that_fails_tells_what_it_had_printed(make_pool):
    pool = make_pool(1, output="capture", initializer=tasks.complain_and_exit)
    error = pool.submit(tasks.time_left).exception(60)
    assert isinstance(error, PoolBroken)
    assert "LICENCE SERVER NOT FOUND" in str(error)


def test_a_pool_inside_a_task_is_ended_by_its_soft_timeout(make_pool, tmp_path):
    pool = make_pool(1, retry=1, preload=("pool_limits",))
    for limit in (2, 5, 20):  # until there is a pool inside by then, which depends on how busy the machine is
        inside = pool.options(soft_timeout=limit).submit(tasks.wait_in_pool_inside, str(tmp_path / "pid"))
        error = inside.exception(60)
        assert isinstance(error, TaskTimeout)
        if (tmp_path / "pid").exists():
            break
    (pid,) = lines(tmp_path / "pid")
    until(lambda: not os.path.exists(f"/proc/{pid}"))


def test_a_soft_timeout_in_a_group_of_exceptions_counts_as_one(make_pool):
    pool = warmed(make_pool(1, retry=1))
    error = pool.options(soft_timeout=0.3).submit(tasks.wait_in_task_group).exception(60)
    assert isinstance(error, TaskTimeout)
    assert isinstance(error.__cause__, ExceptionGroup)


def test_a_soft_timeout_is_nothing_that_the_standard_library_takes_for_an_answer():
    assert not issubclass(SoftTimeout, OSError)


def test_a_worker_that_the_kernels_oom_killer_has_ended_is_said_to_be(make_pool, small_cgroup):  # noqa: F811
    future = make_pool(1, retry=1).submit(tasks.starve_in, str(small_cgroup))
    error = future.exception(60)
    assert isinstance(error, WorkerDied)
    assert error.signal == "SIGKILL"
    if os.access("/dev/kmsg", os.R_OK):
        assert "the kernel's OOM killer ended it" in str(error)
    assert future.dossier.attempts[0].remark in str(error)

"""A kill ends its attempt whatever that does, tells where it stood, and touches no other."""

from __future__ import annotations

import os
import signal

import lane_leavings as leavings
import lane_pickles as pickles
import lane_tasks as tasks
import pytest
from lane_harness import alive, lines, linux_only, until

from resilient_exec.core.messages import Begun
from resilient_exec.model.dossier import users_frames
from resilient_exec.model.task import Returned
from resilient_exec.process.tree import state

MEGABYTE = 1 << 20

HANGS = {
    "sleeps": (tasks.sleep_for_ever, "in sleep_for_ever"),
    "spins": (tasks.spin_for_ever, "in spin_for_ever"),
    "swallows every exception": (tasks.swallow_everything, "in swallow_everything"),
    "holds the GIL in C": (tasks.burn_in_c_under_the_gil, "in burn_in_c_under_the_gil"),
    "ignores SIGTERM": (tasks.ignore_sigterm_and_sleep, "in sleep_for_ever"),
    "leads a session of its own": (leavings.become_session_leader, "in become_session_leader"),
}


@linux_only
@pytest.mark.parametrize(("fn", "frame"), list(HANGS.values()), ids=list(HANGS))
def test_a_kill_ends_a_task_that_hangs_and_its_stacks_name_the_guilty_function(ready, fn, frame):
    ready.begin(fn)
    until(lambda: frame in ready.stacks_now())
    ready.kill()
    died = ready.died()
    assert (died.exitcode, died.pid, died.why) == (-signal.SIGKILL, ready.pid, "it was killed")
    assert frame in died.evidence.stacks
    ready.still_works()


@linux_only
def test_a_task_that_has_stopped_its_own_process_is_killed_with_its_stacks(ready):
    ready.begin(tasks.stop_itself)
    until(lambda: state(ready.pid) == "T")
    ready.kill()
    assert "in stop_itself" in ready.died().evidence.stacks


def test_a_kill_ends_a_result_that_hangs_while_it_proves_itself(ready):
    ready.begin(pickles.give_call, tasks.spin_for_ever)
    until(lambda: "in spin_for_ever" in ready.stacks_now())
    ready.kill()
    stacks = ready.died().evidence.stacks
    assert "in spin_for_ever" in stacks
    assert "in pack_value" in stacks


def test_a_kill_ends_an_exception_that_hangs_while_it_proves_itself(ready):
    ready.begin(pickles.raise_class, pickles.CallsWhenLoadedError, tasks.spin_for_ever)
    until(lambda: "in spin_for_ever" in ready.stacks_now())
    ready.kill()
    assert "in pack_exception" in ready.died().evidence.stacks


def test_a_kill_ends_an_argument_that_hangs_while_it_is_unpickled(ready):
    ready.begin(pickles.give, pickles.Calls(tasks.spin_for_ever))
    until(lambda: "in spin_for_ever" in ready.stacks_now())
    ready.kill()
    assert "in unpack_call" in ready.died().evidence.stacks


def test_the_stacks_that_are_shown_end_with_the_users_code(ready):
    ready.begin(tasks.spin_for_ever)
    until(lambda: "in spin_for_ever" in ready.stacks_now())
    ready.kill()
    shown = users_frames(ready.died().evidence.stacks)
    assert "in spin_for_ever" in shown
    assert os.path.join("resilient_exec", "worker") not in shown


def test_the_stacks_show_every_thread_of_the_worker(ready, tmp_path):
    ready.begin(tasks.spin_beside_a_sleeping_thread, str(tmp_path / "inside"))
    until(lambda: lines(tmp_path / "inside"))
    ready.kill()
    stacks = ready.died().evidence.stacks
    assert "in spin_beside_a_sleeping_thread" in stacks
    assert "in sleep_for_ever" in stacks


@linux_only
def test_a_task_that_blocks_every_signal_is_killed_all_the_same(ready, tmp_path):
    ready.begin(tasks.block_all_signals_and_spin, str(tmp_path / "blocked"))
    until(lambda: lines(tmp_path / "blocked"))
    ready.kill()
    died = ready.died()
    assert died.exitcode == -signal.SIGKILL
    assert died.evidence.stacks == ""


@linux_only
def test_a_task_that_took_the_stacks_signal_for_itself_is_killed_all_the_same(ready, tmp_path):
    ready.begin(tasks.replace_the_stacks_handler, str(tmp_path / "set"))
    until(lambda: lines(tmp_path / "set"))
    ready.kill()
    assert ready.died().exitcode == -signal.SIGKILL


@linux_only
def test_a_task_that_gave_the_stacks_signal_its_deadly_default_is_charged_with_the_kill(ready, tmp_path):
    ready.begin(tasks.unset_the_stacks_handler, str(tmp_path / "set"))
    until(lambda: lines(tmp_path / "set"))
    ready.kill()
    assert ready.died().exitcode in (-signal.SIGKILL, -signal.SIGUSR1)


@linux_only
def test_asking_for_the_stacks_writes_nothing_into_a_file_that_has_taken_their_descriptor(ready, tmp_path):
    ready.begin(leavings.put_own_files_over_the_stacks, str(tmp_path), str(tmp_path / "told"))
    assert until(lambda: lines(tmp_path / "told")) == [1]
    ready.kill()
    assert ready.died().evidence.stacks == ""
    own = list(tmp_path.glob("own-*"))
    assert [file.read_bytes() for file in own] == [b""]


# -- whom a kill hits ------------------------------------------------------------------------------------------------


def test_a_late_kill_does_not_hit_the_next_attempt(ready, tmp_path):
    ready.outcome(tasks.double, 1)
    first = ready.key
    ready.begin(tasks.wait_for, str(tmp_path / "go"))
    ready.kill(first)
    ready.nothing()
    (tmp_path / "go").touch()
    assert ready.ended() == Returned("waited")
    assert ready.value(tasks.pid) == ready.pid


def test_a_kill_of_an_attempt_that_has_ended_leaves_the_idle_worker_alone(ready):
    ready.outcome(tasks.double, 1)
    ready.kill()
    ready.nothing()
    assert ready.value(tasks.pid) == ready.pid


def test_a_kill_of_another_try_of_the_same_task_does_nothing(ready, tmp_path):
    ready.begin(tasks.wait_for, str(tmp_path / "go"))
    ready.kill_attempt(2)
    ready.nothing()
    (tmp_path / "go").touch()
    assert ready.ended() == Returned("waited")


def test_a_kill_without_a_worker_does_nothing(ready):
    ready.death(tasks.exit_at_once, 1)
    ready.kill()
    ready.give_up_start()
    ready.nothing()
    ready.start()


def test_a_result_that_beats_its_kill_is_kept_and_the_worker_lives_on(ready, tmp_path):
    ready.begin(tasks.wait_for, str(tmp_path / "go"))
    with ready.held():
        (tmp_path / "go").touch()
        until(ready.has_ended_by_register)
        ready.kill()
    assert ready.ended() == Returned("waited")
    assert ready.value(tasks.pid) == ready.pid


def test_a_death_that_beats_its_kill_is_told_as_it_was(ready, tmp_path):
    ready.begin(tasks.wait_then_exit, str(tmp_path / "go"), 3)
    with ready.held():
        (tmp_path / "go").touch()
        until(lambda: not alive(ready.pid))
        ready.kill()
    assert ready.died().exitcode == 3


@linux_only
def test_a_kill_unless_begun_ends_a_worker_that_has_not_begun_and_charges_nobody(ready):
    ready.signal(signal.SIGSTOP)
    ready.send(tasks.double, 1)
    ready.kill(unless_begun=True)
    assert ready.gone() == "it was killed"


@linux_only
def test_a_plain_kill_of_an_attempt_that_has_not_begun_charges_nobody_either(ready):
    ready.signal(signal.SIGSTOP)
    ready.send(tasks.double, 1)
    ready.kill()
    assert ready.gone() == "it was killed"
    ready.still_works()


def test_a_kill_unless_begun_spares_an_attempt_that_has_begun(ready, tmp_path):
    ready.begin(tasks.wait_for, str(tmp_path / "go"))
    ready.kill(unless_begun=True)
    ready.nothing()
    (tmp_path / "go").touch()
    assert ready.ended() == Returned("waited")


def test_a_kill_unless_begun_spares_an_attempt_whose_begin_is_not_yet_read(ready, tmp_path):
    with ready.held():
        ready.send(tasks.wait_for, str(tmp_path / "go"))
        ready.pump_by_hand()
        ready.kill(unless_begun=True)
        until(ready.has_begun_by_register)
    assert ready.expect(Begun).number == ready.key
    ready.nothing()
    (tmp_path / "go").touch()
    assert ready.ended() == Returned("waited")


# -- stopped workers -------------------------------------------------------------------------------------------------


@linux_only
def test_a_worker_stopped_while_idle_runs_what_it_was_sent_once_it_is_continued(ready):
    ready.signal(signal.SIGSTOP)
    ready.send(tasks.double, 3)
    ready.nothing()
    ready.signal(signal.SIGCONT)
    assert ready.expect(Begun).number == ready.key
    assert ready.ended() == Returned(6)


@linux_only
def test_a_worker_stopped_during_a_task_goes_on_when_it_is_continued(ready, tmp_path):
    ready.begin(tasks.wait_for, str(tmp_path / "go"))
    ready.signal(signal.SIGSTOP)
    (tmp_path / "go").touch()
    ready.nothing()
    ready.signal(signal.SIGCONT)
    assert ready.ended() == Returned("waited")


@linux_only
def test_a_worker_stopped_during_a_task_is_killed_and_still_tells_its_stacks(ready, tmp_path):
    ready.begin(tasks.wait_for, str(tmp_path / "go"))
    until(lambda: "in wait_for" in ready.stacks_now())
    ready.signal(signal.SIGSTOP)
    ready.kill()
    assert "in wait_for" in ready.died().evidence.stacks


@linux_only
def test_a_worker_stopped_after_a_task_is_idle_and_nothing_is_lost(ready):
    ready.outcome(tasks.double, 1)
    ready.signal(signal.SIGSTOP)
    ready.kill()
    ready.nothing()
    ready.send(tasks.pid)
    ready.signal(signal.SIGCONT)
    ready.expect(Begun)
    assert ready.ended() == Returned(ready.pid)


@linux_only
@pytest.mark.parametrize("then", ["continued", "killed"])
def test_a_worker_stopped_in_the_middle_of_a_large_call_does_not_block_its_lane(ready, then):
    data = bytes(20 * MEGABYTE)
    ready.signal(signal.SIGSTOP)
    ready.send(tasks.length, data)
    ready.nothing()
    assert ready.lane.lease.sending, "the call is on its way"
    if then == "killed":
        ready.kill()
        ready.gone()
        ready.still_works()
    else:
        ready.signal(signal.SIGCONT)
        ready.expect_past_progress(Begun)
        assert ready.ended() == Returned(len(data))


@linux_only
@pytest.mark.parametrize("then", ["continued", "killed", "killed by others"])
def test_a_worker_stopped_in_the_middle_of_a_large_result_does_not_block_its_lane(ready, tmp_path, then):
    ready.begin(tasks.wait_then_give_bytes, str(tmp_path / "go"), 20 * MEGABYTE)
    with ready.held():
        (tmp_path / "go").touch()
        until(lambda: ready.bytes_waiting() > 50_000)
        ready.signal(signal.SIGSTOP)
    ready.nothing()
    if then == "continued":
        ready.signal(signal.SIGCONT)
        assert ready.ended() == Returned(bytes(20 * MEGABYTE))
        return
    if then == "killed":
        ready.kill()
    else:
        os.kill(ready.pid, signal.SIGKILL)
    assert ready.died().exitcode == -signal.SIGKILL
    ready.still_works()


@linux_only
def test_a_kill_while_200_megabytes_are_on_their_way_leaves_nothing_that_corrupts_what_follows(ready, tmp_path):
    ready.begin(tasks.wait_then_give_bytes, str(tmp_path / "go"), 200 * MEGABYTE)
    with ready.held():
        (tmp_path / "go").touch()
        until(lambda: ready.bytes_waiting() > 50_000)
        ready.kill()
    assert ready.died().exitcode == -signal.SIGKILL
    ready.start()
    for n in range(20):
        assert ready.value(tasks.double, n) == 2 * n


def test_large_calls_and_results_pass_both_ways_whole(ready):
    data = os.urandom(3 * MEGABYTE) * 10
    ready.send(pickles.give, data)
    ready.expect_past_progress(Begun)
    assert ready.ended() == Returned(data)

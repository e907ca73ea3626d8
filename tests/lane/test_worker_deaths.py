"""However an attempt ends its process, the outcome says so, names the right one, and the lane runs on."""

from __future__ import annotations

import os
import signal

import lane_leavings as leavings
import lane_pickles as pickles
import lane_tasks as tasks
import pytest
from lane_harness import alive, linux_only, until

from resilient_exec.model.errors import NotSendable
from resilient_exec.model.task import Died, NotSent, Raised, Returned
from resilient_exec.wire.payload import RemoteTraceback

DEATHS = {
    "SIGKILL": (-signal.SIGKILL, tasks.signal_itself, signal.SIGKILL),
    "SIGTERM": (-signal.SIGTERM, tasks.signal_itself, signal.SIGTERM),
    "SIGABRT": (-signal.SIGABRT, os.abort),
    "SIGSEGV": (-signal.SIGSEGV, tasks.read_address_zero),
    "a burst C stack": (-signal.SIGSEGV, tasks.burst_the_stack),
    "_exit(0)": (0, tasks.exit_at_once, 0),
    "_exit(3)": (3, tasks.exit_at_once, 3),
    "exec of another program": (7, tasks.become_another_program),
    "unpickling of the argument": (4, pickles.give, pickles.Calls(os._exit, 4)),
    "pickling of the result": (5, pickles.give_pickling_call, os._exit, 5),
    "unpickling of its own result": (6, pickles.give_call, os._exit, 6),
    "pickling of the exception": (7, pickles.raise_class, pickles.CallsWhenLoadedError, tasks.exit_at_once, 7),
}


@pytest.mark.parametrize(("exitcode", "fn", "args"), [(c, f, a) for c, f, *a in DEATHS.values()], ids=list(DEATHS))
def test_a_death_names_its_attempt_and_exit_code_and_the_lane_starts_a_new_worker(ready, exitcode, fn, args):
    pid = ready.pid
    died = ready.death(fn, *args)
    assert died == Died(exitcode, pid)
    assert ready.start() != pid
    ready.still_works()


def test_several_deaths_in_a_row_leave_the_lane_as_good_as_new(ready):
    for status in range(5):
        assert ready.death(tasks.exit_at_once, status).exitcode == status
        ready.start()
    ready.still_works()


def test_sys_exit_in_a_task_is_the_tasks_outcome_and_its_worker_lives_on(shared):
    error = shared.raised(tasks.call_sys_exit, 3)
    assert type(error) is SystemExit
    assert error.args == (3,)
    assert shared.value(tasks.pid) == shared.pid


@pytest.mark.parametrize("cls", [KeyboardInterrupt, GeneratorExit, StopIteration, BaseException])
def test_what_is_no_ordinary_exception_is_an_outcome_too(shared, cls):
    error = shared.raised(pickles.raise_class, cls, "why")
    assert type(error) is cls
    assert error.args == ("why",)
    assert shared.value(tasks.pid) == shared.pid


EXCEPTIONS = {
    "plain": (pickles.PlainError, ("a", 1), {}),
    "of an os error": (FileNotFoundError, (2, "No such file", "x"), {}),
    "of a failed decoding": (UnicodeDecodeError, ("utf-8", b"\xff", 0, 1, "bad"), {}),
    "with args that cannot be compared": (pickles.PlainError, (float("nan"),), {}),
    "a frozen dataclass": (pickles.FrozenError, (3, "three"), {}),
    "keyword-only": (pickles.KeywordOnlyError, (), {"code": 7}),
    "made again from its own args": (pickles.DecoratingError, ("x",), {}),
}


@pytest.mark.parametrize(("cls", "args", "kwargs"), list(EXCEPTIONS.values()), ids=list(EXCEPTIONS))
def test_an_exception_arrives_as_the_same_type_with_the_same_args_and_attributes(shared, cls, args, kwargs):
    expected = cls(*args, **kwargs)
    error = shared.raised(pickles.raise_with, cls, args, kwargs)
    assert type(error) is cls
    assert repr(error.args) == repr(expected.args)
    assert error.__dict__ == expected.__dict__
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "in raise_with" in str(error.__cause__)
    ours = os.path.join("resilient_exec", "worker")
    assert ours not in str(error.__cause__), "the traceback begins with the user's code"


def test_an_exception_with_a_reduce_of_its_own_is_rebuilt_by_it(shared):
    error = shared.raised(pickles.raise_class, pickles.ReducingError, 9)
    assert type(error) is pickles.ReducingError
    assert error.code == 9


STAND_INS = {
    "holds a lock": pickles.HoldsLockError,
    "does not load": pickles.LoadsBadlyError,
    "exits when it is pickled": pickles.ExitsWhenPickledError,
    "interrupts when it is pickled": pickles.InterruptsWhenPickledError,
    "cannot even be printed": pickles.UnprintableError,
}


@pytest.mark.parametrize("cls", list(STAND_INS.values()), ids=list(STAND_INS))
def test_an_exception_that_cannot_travel_arrives_as_a_stand_in_and_its_worker_lives_on(shared, cls):
    error = shared.raised(pickles.raise_class, cls)
    assert isinstance(error, cls | NotSendable)
    if isinstance(error, NotSendable):
        assert cls.__name__ in str(error)
    assert "in raise_class" in str(error.__cause__)
    assert shared.value(tasks.pid) == shared.pid


def test_a_frozen_exception_that_was_raised_by_a_cause_shows_the_cause_in_its_traceback(shared):
    error = shared.raised(pickles.raise_from, ValueError("the root"), pickles.FrozenError, 1, "x")
    assert type(error) is pickles.FrozenError
    assert "the root" in str(error.__cause__)


def test_a_result_that_cannot_be_pickled_is_told_with_its_type_and_the_worker_lives_on(shared):
    outcome = shared.outcome(pickles.give_lock)
    assert isinstance(outcome, NotSent)
    assert "lock" in outcome.message
    assert "cannot be pickled" in outcome.message
    assert shared.value(tasks.pid) == shared.pid


def test_a_result_that_does_not_unpickle_is_found_out_in_its_own_worker(shared):
    outcome = shared.outcome(pickles.give_call, pickles.fail_to_load)
    assert isinstance(outcome, NotSent)
    assert "Calls" in outcome.message
    assert "it does not load" in outcome.message
    assert shared.value(tasks.pid) == shared.pid


@pytest.mark.parametrize("give", [pickles.give_call, pickles.give_pickling_call])
def test_a_result_that_exits_in_its_pickling_or_unpickling_is_the_tasks_own_exit(shared, give):
    outcome = shared.outcome(give, tasks.call_sys_exit, 3)
    assert isinstance(outcome, Raised)
    assert isinstance(outcome.exception, SystemExit)
    assert shared.value(tasks.pid) == shared.pid


def test_an_argument_that_does_not_unpickle_is_told_and_the_worker_lives_on(shared):
    outcome = shared.outcome(pickles.give, pickles.Calls(pickles.fail_to_load))
    assert isinstance(outcome, NotSent)
    assert "unpickled in the worker" in outcome.message
    assert "it does not load" in outcome.message
    assert shared.value(tasks.pid) == shared.pid


def test_a_result_that_reached_the_parent_stays_although_its_worker_dies_right_after(ready):
    assert ready.outcome(tasks.return_and_die) == Returned("done")
    assert ready.gone() == ""
    ready.still_works()


def test_a_result_that_is_sent_but_not_read_when_its_worker_dies_is_kept(ready, tmp_path):
    ready.begin(tasks.wait_for, str(tmp_path / "go"))
    with ready.held():
        (tmp_path / "go").touch()
        until(ready.has_ended_by_register)
        ready.signal(signal.SIGKILL)
        until(lambda: not alive(ready.pid))
    assert ready.ended() == Returned("waited")
    assert ready.gone() == ""
    ready.still_works()


def test_a_worker_killed_while_idle_costs_nothing(ready):
    ready.signal(signal.SIGKILL)
    assert ready.gone() == ""
    ready.still_works()


def test_an_attempt_sent_to_a_worker_that_has_just_died_is_charged_to_nobody(ready):
    with ready.held():
        ready.signal(signal.SIGKILL)
        until(lambda: not alive(ready.pid))
        ready.send(tasks.double, 1)
    ready.gone()
    ready.still_works()


@linux_only
def test_a_worker_killed_with_an_attempt_that_it_has_not_begun_charges_nobody(ready):
    ready.signal(signal.SIGSTOP)
    ready.send(tasks.double, 1)
    ready.nothing()
    ready.signal(signal.SIGKILL)
    assert ready.gone() == ""
    ready.still_works()


@linux_only
def test_a_worker_killed_between_two_attempts_charges_neither(ready):
    assert ready.value(tasks.double, 1) == 2
    ready.signal(signal.SIGSTOP)
    ready.send(tasks.double, 2)
    ready.nothing()
    ready.signal(signal.SIGKILL)
    assert ready.gone() == ""


def test_an_alarm_that_a_task_forgot_strikes_neither_the_idle_worker_nor_the_next_task(ready, tmp_path):
    ready.value(tasks.leave_an_alarm, 0.05)
    assert ready.value(tasks.outlast, 0.2) == "outlasted"
    assert ready.value(tasks.pid) == ready.pid


def test_an_interrupt_from_a_thread_left_behind_ends_the_idle_worker_and_charges_nobody(ready, tmp_path):
    ready.value(tasks.leave_a_thread_that_interrupts, str(tmp_path / "now"))
    (tmp_path / "now").touch()
    ready.gone()
    ready.still_works()


def test_a_task_that_closes_the_standard_streams_harms_nobody(ready):
    assert ready.value(leavings.close_standard_streams) == "closed"
    assert ready.value(tasks.double, 4) == 8
    assert isinstance(ready.raised(pickles.raise_class, ValueError), ValueError)


def test_the_flood_of_a_tasks_deep_recursion_ends_in_its_own_error(shared):
    assert isinstance(shared.raised(tasks.recurse_then_wait, 10**6, "/"), RecursionError)
    shared.still_works()

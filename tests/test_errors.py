"""The errors a caller meets: their family, what they carry, what they say, and that they travel."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import BrokenExecutor

import pytest

from resilient_exec import errors
from resilient_exec.errors import (
    AttemptError,
    IllegalTransition,
    InternalError,
    NotSendable,
    PoolBroken,
    PoolClosed,
    ResilientError,
    TaskKilled,
    TaskTimeout,
    WorkerDied,
    signal_name,
)
from resilient_exec.events import Event
from resilient_exec.messages import Settle
from resilient_exec.task import Died, Killed, Lost, NotSent, Raised, Returned, TimedOut
from resilient_exec.verdict import error_of

STORY = (Event(0.0, "queued", ("k", 1)), Event(1.5, "died", ("k", 1), 2, 0, {"pid": 7, "exitcode": -9}))


def _tree(cls: type[ResilientError]) -> list[type[ResilientError]]:
    return [cls, *(below for sub in cls.__subclasses__() if sub.__module__ == errors.__name__ for below in _tree(sub))]


CLASSES = list(dict.fromkeys(_tree(ResilientError)))
ATTEMPT_ERRORS = [cls for cls in CLASSES if issubclass(cls, AttemptError)]


def make(cls: type[ResilientError]) -> ResilientError:
    if not issubclass(cls, AttemptError):
        return cls("what happened")
    error = cls("what happened", key=("k", 1), attempt=2, story=STORY, stacks="File x.py")
    if isinstance(error, WorkerDied):
        error.exitcode = -9
    return error


# -- the family --------------------------------------------------------------------------------------------------------


def test_the_tree_holds_every_public_error() -> None:
    public = {getattr(errors, name) for name in errors.__all__ if name != "signal_name"}
    assert public == set(CLASSES)


@pytest.mark.parametrize(
    ("cls", "also"),
    [
        (WorkerDied, AttemptError),
        (TaskTimeout, AttemptError),
        (TaskTimeout, TimeoutError),
        (TaskKilled, AttemptError),
        (NotSendable, AttemptError),
        (PoolClosed, RuntimeError),
        (PoolBroken, BrokenExecutor),
        (IllegalTransition, InternalError),
        *((cls, ResilientError) for cls in CLASSES),
    ],
)
def test_each_error_is_also_what_the_caller_may_catch(cls: type[Exception], also: type[Exception]) -> None:
    with pytest.raises(also):
        raise make(cls)


@pytest.mark.parametrize("cls", CLASSES)
def test_each_error_is_documented(cls: type[Exception]) -> None:
    assert "__doc__" in vars(cls)
    assert cls.__doc__


# -- travelling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("cls", CLASSES)
def test_each_error_pickles_with_all_it_carries(cls: type[ResilientError], protocol: int) -> None:
    error = make(cls)
    error.add_note("seen on Monday")
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is cls
    assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))


@pytest.mark.parametrize("cls", CLASSES)
def test_each_error_can_be_copied(cls: type[ResilientError]) -> None:
    assert vars(copy.copy(make(cls))) == vars(make(cls))


@pytest.mark.parametrize("cls", ATTEMPT_ERRORS)
def test_an_attempt_error_carries_key_attempt_story_and_stacks(cls: type[AttemptError]) -> None:
    error = pickle.loads(pickle.dumps(make(cls)))
    assert (error.key, error.attempt, error.story, error.stacks) == (("k", 1), 2, STORY, "File x.py")
    assert error.args == ("what happened",)


@pytest.mark.parametrize("cls", ATTEMPT_ERRORS)
def test_an_attempt_error_can_be_made_of_its_message_alone(cls: type[AttemptError]) -> None:
    error = cls("what happened")
    assert (error.key, error.attempt, error.story, error.stacks) == (None, 0, (), "")


def test_a_task_timeout_is_a_timeout_error_without_an_errno() -> None:
    error = TaskTimeout("too slow", key="a")
    assert (str(error), error.args, error.errno, error.strerror) == ("too slow", ("too slow",), None, None)


# -- signals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exitcode", "name"),
    [
        (None, None),
        (0, None),
        (1, None),
        (255, None),
        (-9, "SIGKILL"),
        (-11, "SIGSEGV"),
        (-15, "SIGTERM"),
        (-999, "signal 999"),
    ],
)
def test_a_negative_exit_code_is_a_signal_by_name(exitcode: int | None, name: str | None) -> None:
    assert signal_name(exitcode) == name
    error = WorkerDied("x")
    assert error.exitcode is None
    error.exitcode = exitcode
    assert pickle.loads(pickle.dumps(error)).signal == name


# -- verdicts ----------------------------------------------------------------------------------------------------------


def settle(outcome: object, attempts: int = 2, label: str = "") -> Settle:
    return Settle("a", outcome, attempts, 12.3456, STORY, label)


@pytest.mark.parametrize(
    ("outcome", "cls", "says"),
    [
        (
            Died(-9, 77),
            WorkerDied,
            "task 'a' died with it: its worker (pid 77) was killed by SIGKILL; attempt 2, 12.3 s",
        ),
        (Died(-999, 77), WorkerDied, "was killed by signal 999"),
        (Died(3, 77), WorkerDied, "its worker (pid 77) exited with status 3"),
        (Died(0, 77), WorkerDied, "its worker (pid 77) exited with status 0"),
        (Died(None, 77), WorkerDied, "its worker (pid 77) ended, nobody knows how"),
        (Died(-9, 77, why="lost the channel"), WorkerDied, "was killed by SIGKILL: lost the channel"),
        (TimedOut(1.5, 77), TaskTimeout, "still running after its timeout of 1.5 s; its worker (pid 77) was killed"),
        (Killed("future.kill()", 77), TaskKilled, "task 'a' was ended by future.kill()"),
        (Lost("10 times in a row; gone"), WorkerDied, "never began: its worker went away each time"),
        (NotSent("argument 0 is a lock"), NotSendable, "task 'a' argument 0 is a lock"),
    ],
    ids=repr,
)
def test_each_outcome_has_its_error_and_says_what_happened(outcome: object, cls: type[AttemptError], says: str) -> None:
    error = error_of(settle(outcome))
    assert type(error) is cls
    assert says in str(error)
    assert (error.key, error.attempt, error.story) == ("a", 2, STORY)


def test_a_death_carries_exit_code_and_signal() -> None:
    error = error_of(settle(Died(-11, 77)))
    assert (error.exitcode, error.signal) == (-11, "SIGSEGV")
    assert error_of(settle(Lost("gone"))).exitcode is None


@pytest.mark.parametrize(
    "outcome", [Died(-9, 77, "File x.py"), TimedOut(1, 77, "File x.py"), Killed("me", 77, "File x.py")]
)
def test_stacks_are_in_the_error_and_at_the_end_of_its_message(outcome: object) -> None:
    error = error_of(settle(outcome))
    assert error.stacks == "File x.py"
    assert str(error).endswith("just before it was killed:\nFile x.py")


def test_the_label_is_named_beside_the_key() -> None:
    assert str(error_of(settle(Killed("me"), label="world 7"))).startswith("task 'a' (world 7) was ended by me")


def test_without_an_attempt_none_is_named() -> None:
    assert str(error_of(settle(Killed("me"), attempts=0))) == "task 'a' was ended by me"


def test_the_users_exception_is_handed_over_untouched() -> None:
    exception = SystemExit(3)
    assert error_of(settle(Raised(exception))) is exception
    assert exception.__dict__ == {}


def test_an_error_of_the_pools_own_is_handed_over_untouched() -> None:
    error = PoolBroken("no worker")
    assert error_of(settle(error)) is error


def test_an_error_of_ours_that_the_task_itself_raised_is_the_tasks() -> None:
    error = WorkerDied("in a pool inside the task")
    assert error_of(settle(Raised(error))) is error


def test_the_cause_of_what_could_not_travel_is_kept() -> None:
    cause = TypeError("cannot pickle a lock")
    assert error_of(settle(NotSent("argument 0", cause))).__cause__ is cause


@pytest.mark.parametrize("outcome", [None, Returned(1), "nonsense"])
def test_what_is_no_failure_is_a_bug_and_says_so(outcome: object) -> None:
    error = error_of(settle(outcome))
    assert type(error) is InternalError
    assert "'a'" in str(error)

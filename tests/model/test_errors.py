"""The errors a caller meets: their family, what they carry, what they say, and that they travel."""

from __future__ import annotations

import copy
import pickle
import traceback
from concurrent.futures import BrokenExecutor
from dataclasses import replace

import pytest

from resilient_exec.core.messages import Settle
from resilient_exec.model import errors
from resilient_exec.model.dossier import AttemptReport, Dossier
from resilient_exec.model.errors import (
    AttemptError,
    IllegalTransition,
    InternalError,
    MemoryLimitExceeded,
    NotSendable,
    PoolBroken,
    PoolClosed,
    ResilientError,
    SoftTimeout,
    TaskKilled,
    TaskTimeout,
    WorkerDied,
)
from resilient_exec.model.events import Event
from resilient_exec.model.evidence import Evidence
from resilient_exec.model.exit_status import signal_name
from resilient_exec.model.policies import RetryPolicy
from resilient_exec.model.task import (
    Died,
    Evicted,
    Killed,
    Lost,
    NotSent,
    Outcome,
    OutOfMemory,
    Outrun,
    Raised,
    Returned,
    Task,
    TimedOut,
)
from resilient_exec.supervisor.failures import error_of

STACKS = Evidence(stacks="File x.py")
DOSSIER = Dossier(("k", 1), "simulate", "42", (AttemptReport(1, "died", "it died", 0, 7, 1.0, 0.5, -9, "SIGKILL"),))
STORY = (Event(0.0, "queued", ("k", 1)), Event(1.5, "died", ("k", 1), 2, 0, {"pid": 7, "exitcode": -9}))


def _tree(cls: type[ResilientError]) -> list[type[ResilientError]]:
    return [
        cls,
        *(
            below
            for sub in cls.__subclasses__()
            if sub.__module__ in ("resilient_exec", errors.__name__)
            for below in _tree(sub)
        ),
    ]


CLASSES = list(dict.fromkeys(_tree(ResilientError)))
ATTEMPT_ERRORS = [cls for cls in CLASSES if issubclass(cls, AttemptError)]


def make(cls: type[ResilientError]) -> ResilientError:
    if not issubclass(cls, AttemptError):
        return cls("what happened")
    error = cls("what happened", key=("k", 1), attempt=2, story=STORY, stacks="File x.py", dossier=DOSSIER)
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
        (MemoryLimitExceeded, AttemptError),
        (MemoryLimitExceeded, MemoryError),
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


@pytest.mark.parametrize("cls", [SoftTimeout, PoolClosed, PoolBroken, InternalError, IllegalTransition])
def test_an_error_that_is_about_no_attempt_is_no_attempt_error(cls: type[Exception]) -> None:
    assert not issubclass(cls, AttemptError)


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


@pytest.mark.parametrize("cls", ATTEMPT_ERRORS)
def test_an_attempt_error_travels_with_its_dossier_and_shows_it_once(cls: type[AttemptError]) -> None:
    error = make(cls)
    for _ in range(3):
        error = pickle.loads(pickle.dumps(error))
    assert error.dossier == DOSSIER
    assert error.__notes__ == [str(DOSSIER)]


@pytest.mark.parametrize("cls", ATTEMPT_ERRORS)
def test_a_traceback_shows_the_message_and_the_dossier_below_it(cls: type[AttemptError]) -> None:
    shown = "".join(traceback.format_exception(make(cls)))
    assert shown.endswith(f"{cls.__module__}.{cls.__qualname__}: what happened\n{DOSSIER}\n")


@pytest.mark.parametrize("cls", CLASSES)
def test_each_error_can_be_copied(cls: type[ResilientError]) -> None:
    assert vars(copy.copy(make(cls))) == vars(make(cls))


@pytest.mark.parametrize("cls", ATTEMPT_ERRORS)
def test_an_attempt_error_carries_key_attempt_story_and_stacks(cls: type[AttemptError]) -> None:
    error = make(cls)
    assert (error.key, error.attempt, error.story, error.stacks) == (("k", 1), 2, STORY, "File x.py")
    assert error.args == ("what happened",)


@pytest.mark.parametrize("cls", ATTEMPT_ERRORS)
def test_an_attempt_error_can_be_made_of_its_message_alone(cls: type[AttemptError]) -> None:
    error = cls("what happened")
    assert (error.key, error.attempt, error.story, error.stacks, error.dossier) == (None, 0, (), "", None)
    assert not hasattr(error, "__notes__")


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
    return Settle("a", outcome, attempts, 12.3456, STORY, Task("a", RetryPolicy(), key="a", label=label))


MIB = 2**20
WHICH = "; attempt 2 of 2, 12.3 s after it first began"
DEATH = "; its dossier shows what is known; RetryPolicy(deaths=...) grants more attempts"
SAID = [  # outcome, error, what its message says about it, and what to do
    (Died(-9, 77), WorkerDied, "failed because its worker (pid 77) was killed by SIGKILL", DEATH),
    (Died(-999, 77), WorkerDied, "failed because its worker (pid 77) was killed by signal 999", DEATH),
    (Died(3, 77), WorkerDied, "failed because its worker (pid 77) exited with status 3", DEATH),
    (Died(0, 77), WorkerDied, "failed because its worker (pid 77) exited with status 0", DEATH),
    (Died(None, 77), WorkerDied, "failed because its worker (pid 77) ended with an unknown exit status", DEATH),
    (Died(-9, 77, "mute"), WorkerDied, "failed because its worker (pid 77) was killed by SIGKILL: mute", DEATH),
    (
        TimedOut(1.5, 77),
        TaskTimeout,
        "was still running after its timeout of 1.5 s; its worker (pid 77) was killed",
        "; its dossier shows where it stood; a longer timeout would let it run on",
    ),
    (
        TimedOut(1.5, 77, "soft_timeout"),
        TaskTimeout,
        "ended with the SoftTimeout that was raised in it after its soft_timeout of 1.5 s",
        "; its dossier shows where it stood; a longer soft_timeout would let it run on",
    ),
    (
        TimedOut(60.25, 77, "stall_timeout"),
        TaskTimeout,
        "used no CPU and did no I/O for 60.2 s; its worker (pid 77) was killed",
        "; its dossier shows where it stood; a longer stall_timeout would let it run on",
    ),
    (
        OutOfMemory(100 * MIB, 200 * MIB, 77),
        MemoryLimitExceeded,
        "held 200 MiB, more than its memory_limit of 100 MiB; its worker (pid 77) was killed",
        "; options(memory_limit=...) gives it more",
    ),
    (
        Evicted("the machine had 5 MiB of memory left", 77),
        MemoryLimitExceeded,
        (
            "was evicted to free memory for other attempts: the machine had 5 MiB of memory left; "
            "its worker (pid 77) was killed"
        ),
        "; run fewer workers, or set a memory_limit",
    ),
    (
        Lost("10 times in a row; gone"),
        WorkerDied,
        "never began: its worker was lost before that (10 times in a row; gone)",
        "; something stops or kills the workers between tasks",
    ),
    (NotSent("argument 0 is a lock"), NotSendable, "argument 0 is a lock", ""),
]


@pytest.mark.parametrize(("outcome", "cls", "says", "remedy"), SAID, ids=lambda value: getattr(value, "kind", None))
def test_each_outcome_has_its_error_which_says_in_one_line_what_happened_and_what_to_do(
    outcome: object, cls: type[AttemptError], says: str, remedy: str
) -> None:
    error = error_of(settle(outcome))
    assert type(error) is cls
    assert str(error) == f"task 'a' {says}{WHICH}{remedy}"
    assert (error.key, error.attempt, error.story) == ("a", 2, STORY)


def test_who_was_killed_is_not_told_of_attempts_that_he_was_not_to_have() -> None:
    error = error_of(settle(Killed("future.kill()", 77)))
    assert type(error) is TaskKilled
    assert str(error) == "task 'a' was ended by future.kill(); attempt 2, 12.3 s after it first began"


def test_every_outcome_that_is_a_failure_of_an_attempt_has_an_error() -> None:
    told = {type(outcome) for outcome, *_ in SAID} | {Killed}
    assert told == set(Outcome.__args__) - {Returned, Raised, Outrun}  # the last is never the end of a task


def test_a_death_carries_exit_code_and_signal() -> None:
    error = error_of(settle(Died(-11, 77)))
    assert (error.exitcode, error.signal) == (-11, "SIGSEGV")
    assert error_of(settle(Lost("gone"))).exitcode is None


WITH_EVIDENCE = [outcome for outcome, *_ in SAID if hasattr(outcome, "evidence")] + [Killed("me", 77)]


@pytest.mark.parametrize("outcome", WITH_EVIDENCE, ids=lambda outcome: outcome.kind)
def test_the_stacks_are_on_the_error_and_not_in_its_message(outcome: object) -> None:
    error = error_of(settle(replace(outcome, evidence=STACKS)))
    assert error.stacks == "File x.py"
    assert str(error) == str(error_of(settle(outcome)))
    assert "\n" not in str(error)


def test_what_else_was_found_out_is_in_the_message() -> None:
    outcome = Died(-9, 77, evidence=Evidence(remark="the kernel's OOM killer did it"))
    assert "killed by SIGKILL (the kernel's OOM killer did it); attempt 2" in str(error_of(settle(outcome)))


@pytest.mark.parametrize("outcome", WITH_EVIDENCE, ids=lambda outcome: outcome.kind)
def test_the_dossier_is_on_the_error_and_its_text_is_a_note(outcome: object) -> None:
    error = error_of(settle(outcome), DOSSIER)
    assert error.dossier is DOSSIER
    assert error.__notes__ == [str(DOSSIER)]
    assert str(error) == str(error_of(settle(outcome)))


def test_the_label_is_named_beside_the_key() -> None:
    assert str(error_of(settle(Killed("me"), label="world 7"))).startswith("task 'a' (world 7) was ended by me")


def test_without_an_attempt_none_is_named() -> None:
    assert str(error_of(settle(Killed("me"), attempts=0))) == "task 'a' was ended by me"


def test_the_users_exception_is_handed_over_untouched_even_with_a_dossier() -> None:
    exception = SystemExit(3)
    assert error_of(settle(Raised(exception, STACKS)), DOSSIER) is exception
    assert exception.__dict__ == {}


def test_an_error_of_the_pools_own_is_handed_over_untouched() -> None:
    error = PoolBroken("no worker")
    assert error_of(settle(error), DOSSIER) is error
    assert error.__dict__ == {}


@pytest.mark.parametrize("error", [WorkerDied("in a pool inside the task"), SoftTimeout("in a pool inside the task")])
def test_an_error_of_ours_that_the_task_itself_raised_is_the_tasks(error: ResilientError) -> None:
    assert error_of(settle(Raised(error))) is error


def test_the_cause_of_what_could_not_travel_is_kept() -> None:
    cause = TypeError("cannot pickle a lock")
    assert error_of(settle(NotSent("argument 0", cause))).__cause__ is cause


def test_the_soft_timeout_that_left_the_task_is_the_cause_of_its_timeout() -> None:
    cause = SoftTimeout("5 s are over")
    assert error_of(settle(TimedOut(5.0, 77, "soft_timeout", cause))).__cause__ is cause
    assert error_of(settle(TimedOut(5.0, 77))).__cause__ is None


@pytest.mark.parametrize("outcome", [None, Returned(1), "nonsense"])
def test_what_is_no_failure_is_a_bug_and_says_so(outcome: object) -> None:
    error = error_of(settle(outcome))
    assert type(error) is InternalError
    assert "'a'" in str(error)

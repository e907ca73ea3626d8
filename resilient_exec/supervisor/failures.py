"""Turns the last outcome of a task into the exception that its future raises.

Its message is one line: which task, what happened, in which attempt, and what to do.  The dossier hangs on it as a
note, so that a traceback shows it below.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from resilient_exec.model import task as outcomes
from resilient_exec.model.dossier import reason
from resilient_exec.model.errors import (
    AttemptError,
    InternalError,
    MemoryLimitExceeded,
    NotSendable,
    ResilientError,
    TaskKilled,
    TaskTimeout,
    WorkerDied,
)
from resilient_exec.model.events import TaskStory, render
from resilient_exec.model.packed import Packed
from resilient_exec.model.summary import named

if TYPE_CHECKING:
    from resilient_exec.core.messages import Settle
    from resilient_exec.model.dossier import Dossier
    from resilient_exec.model.events import Story

__all__ = ["error_of", "internal_error", "name_of", "not_unpacked", "text_of"]

_KIND: dict[type, tuple[type[AttemptError], str]] = {  # the error, and what to do about it
    outcomes.Died: (WorkerDied, "its dossier shows what is known; RetryPolicy(deaths=...) grants more attempts"),
    outcomes.TimedOut: (TaskTimeout, "its dossier shows where it stood; a longer {what} would let it run on"),
    outcomes.OutOfMemory: (MemoryLimitExceeded, "options(memory_limit=...) gives it more"),
    outcomes.Evicted: (MemoryLimitExceeded, "run fewer workers, or set a memory_limit"),
    outcomes.Killed: (TaskKilled, ""),
    outcomes.Lost: (WorkerDied, "something stops or kills the workers between tasks"),
    outcomes.NotSent: (NotSendable, ""),
}


def error_of(settle: Settle, dossier: Dossier | None = None) -> BaseException:
    """The exception for a task that neither returned nor was cancelled."""
    outcome = settle.outcome
    if isinstance(outcome, outcomes.Raised):
        error = _unpacked(outcome.exception)
        if isinstance(error, NotSendable):
            error.complete(settle.task.key, settle.attempts, TaskStory(settle.story), dossier)
        return error
    if isinstance(outcome, ResilientError):
        return outcome
    if outcome is None or type(outcome) not in _KIND:
        return InternalError(f"task {name_of(settle.task)} settled with {outcome!r}, which is no outcome")
    cls, remedy = _KIND[type(outcome)]
    error = cls(
        _message(settle, outcome, remedy),
        key=settle.task.key,
        attempt=settle.attempts,
        story=TaskStory(settle.story),
        stacks=outcomes.evidence_of(outcome).stacks,
        dossier=dossier,
    )
    if isinstance(outcome, outcomes.Died):
        error.__dict__["exitcode"] = outcome.exitcode
    elif isinstance(outcome, outcomes.NotSent | outcomes.TimedOut) and outcome.cause is not None:
        error.__cause__ = _unpacked(outcome.cause)
    return error


def _unpacked(error: BaseException | Packed) -> BaseException:
    if not isinstance(error, Packed):
        return error
    unpacked: BaseException = error.unpack()
    return unpacked


def name_of(task: outcomes.Task) -> str:
    """The key of a task as a text; runs nobody's code."""
    return task.name or named(task.key)


def internal_error(task: outcomes.Task, error: BaseException, story: Story) -> InternalError:
    """The error of a task whose pool has failed by itself."""
    internal = InternalError(
        f"the pool's supervisor failed with {type(error).__name__}: {error}. This is a bug in resilient_exec: "
        f"please report it, with the log and this story of task {name_of(task)}:\n{render(story)}"
    )
    internal.__cause__ = error
    return internal


def not_unpacked(settle: Settle, error: BaseException, dossier: Dossier | None = None) -> BaseException:
    """The exception for a task whose value or exception does not unpickle in this process."""
    text = f"the outcome cannot be unpickled in the parent: {text_of(error)}"
    outcome = outcomes.NotSent(text, error)
    return error_of(replace(settle, outcome=outcome), dossier)


def text_of(error: BaseException) -> str:
    """The error in one line, whatever its ``__str__`` does."""
    try:
        return " ".join(f"{type(error).__name__}: {error}".split())
    except BaseException:
        return type(error).__name__


def _message(settle: Settle, outcome: outcomes.Outcome, remedy: str) -> str:
    name = f"task {name_of(settle.task)}{f' ({_one_line(settle.task.label)})' if settle.task.label else ''}"
    what = reason(outcome.kind, outcomes.detail_of(outcome) or {})
    remark = outcomes.evidence_of(outcome).remark
    if remark:
        what += f" ({remark})"
    if isinstance(outcome, outcomes.TimedOut):
        remedy = remedy.format(what=outcome.what)
    which = ""
    if settle.attempts:
        of = f" of {settle.attempts}" if outcome.kind != "killed" else ""
        which = f"; attempt {settle.attempts}{of}, {settle.elapsed:.3g} s after it first began"
    return f"{name} {what}{which}{'; ' + remedy if remedy else ''}"


def _one_line(label: str) -> str:
    return " ".join(label.split())

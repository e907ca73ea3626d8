"""The errors that a caller can get: each message says what happened, to which task, and what to do.

::

    ResilientError
    ├── AttemptError            an attempt failed, other than by the task's own exception, and no retry was left
    │   ├── WorkerDied          .exitcode .signal
    │   ├── TaskTimeout         also a TimeoutError
    │   ├── MemoryLimitExceeded also a MemoryError
    │   ├── TaskKilled          future.kill() or shutdown(kill=True)
    │   └── NotSendable         the call or the result could not be pickled or unpickled; says which
    ├── PoolClosed              also a RuntimeError
    ├── PoolBroken              also a concurrent.futures.BrokenExecutor
    ├── SoftTimeout             raised inside the task
    └── InternalError           a bug in resilient_exec; carries the story
        └── IllegalTransition

An exception that the task itself raised is never wrapped in one of these: it comes back with its own type
and ``args``, and with the remote traceback as its ``__cause__``.  Every class here pickles.
"""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from pickle import PicklingError
from typing import TYPE_CHECKING, Any

from resilient_exec.model.exit_status import signal_name

if TYPE_CHECKING:
    from collections.abc import Hashable

    from resilient_exec.model.dossier import Dossier
    from resilient_exec.model.events import Event

__all__ = [
    "AttemptError",
    "IllegalTransition",
    "InternalError",
    "MemoryLimitExceeded",
    "NotSendable",
    "PoolBroken",
    "PoolClosed",
    "ResilientError",
    "SoftTimeout",
    "TaskKilled",
    "TaskTimeout",
    "WorkerDied",
]


def _rebuild(cls: type[ResilientError], message: str, state: dict[str, Any]) -> ResilientError:
    error = cls(message)  # not by BaseException.__new__: it refuses to make a subclass of MemoryError
    error.args = (message,)
    error.__dict__.update(state)
    return error


class ResilientError(Exception):
    """Root of all errors of this package."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By default an exception is pickled as cls(*args), which drops the keyword arguments of __init__.
        return _rebuild, (type(self), str(self), self.__dict__)


class AttemptError(ResilientError):
    """An attempt failed for a reason that is not the task's own exception, and no retry was left.

    Attributes:
        key: the task's key.
        attempt: the number of the last attempt that began; 0 if none began.
        story: the events of the task, in order.
        stacks: Python stacks of all threads of the worker, taken just before it was killed; ``""`` if none.
        dossier: the evidence about all attempts; a traceback shows it below the message, as a note (PEP 678).
    """

    def __init__(
        self,
        message: str,
        *,
        key: Hashable = None,
        attempt: int = 0,
        story: tuple[Event, ...] = (),
        stacks: str = "",
        dossier: Dossier | None = None,
    ) -> None:
        # One positional argument only: OSError (a base of TaskTimeout) reads two as errno and message.
        super().__init__(message)
        self.key = key
        self.attempt = attempt
        self.story = story
        self.stacks = stacks
        self.dossier = dossier
        if dossier is not None:
            self.add_note(str(dossier))


class WorkerDied(AttemptError):
    """The worker process ended while it ran the task, by a signal, ``os._exit`` or a crash of the interpreter.

    Attributes:
        exitcode: as in ``multiprocessing.Process.exitcode`` (negative: killed by that signal); ``None`` if not known.
    """

    exitcode: int | None = None

    @property
    def signal(self) -> str | None:
        """Name of the signal that killed the worker, or ``None``."""
        return signal_name(self.exitcode)


class TaskTimeout(AttemptError, TimeoutError):
    """An attempt exceeded its ``timeout``, its ``soft_timeout`` or the pool's ``stall_timeout``.

    After a ``soft_timeout``, ``__cause__`` is the :class:`SoftTimeout` that left the task.
    """


class MemoryLimitExceeded(AttemptError, MemoryError):
    """The worker and its descendants held more than the ``memory_limit``, or the machine ran out of memory."""


class TaskKilled(AttemptError):
    """The task was ended on request, by ``future.kill()`` or ``pool.shutdown(kill=True)``."""


class NotSendable(AttemptError, PicklingError):
    """The function, an argument or the result could not be pickled or unpickled; the message names it.

    Also in place of an exception of the task's that cannot travel, or whose class this process cannot import: the
    message then has its type and text, and ``__cause__`` its traceback.
    """

    is_incomplete = False  # made where its task was not known

    def complete(self, key: Hashable, attempt: int, story: tuple[Event, ...], dossier: Dossier | None) -> None:
        """Add what was not known where it was made, unless it has that already."""
        if self.__dict__.pop("is_incomplete", False):
            AttemptError.__init__(self, str(self), key=key, attempt=attempt, story=story, dossier=dossier)


class PoolClosed(ResilientError, RuntimeError):
    """The pool accepts no more tasks: it was shut down, the interpreter is exiting, or this is a forked child."""


class PoolBroken(ResilientError, BrokenExecutor):
    """Several starts of workers in a row failed; the message contains the last worker's own error text."""


class SoftTimeout(ResilientError):
    """Raised inside the task, in its main thread, when its ``soft_timeout`` is over, so that the task can clean up.

    If it leaves the task, the attempt counts as timed out.  It is raised once in an attempt; a task that catches it
    may run on until its ``timeout``.  It is not a ``TimeoutError``, because that is an ``OSError``, which the standard
    library catches and treats as an answer: when one was raised inside ``os.path.exists("/")``, the result was
    ``False`` in 19 of 20 cases, and ``os.walk`` ended early in 20 of 40.
    """


class InternalError(ResilientError):
    """A bug in resilient_exec: please report it, with the story in the message."""


class IllegalTransition(InternalError):
    """A task was to make a transition that is not in the table of transitions; its state was not changed."""


# Tracebacks and pickles name the public package and not this module, so that a class may move without breaking pickles.
for _public in (
    AttemptError,
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
):
    _public.__module__ = "resilient_exec"

"""The errors a caller can meet, each saying what happened, to which task, and what to do.

::

    ResilientError
    ├── AttemptError            the infrastructure failed and no retry saved the task
    │   ├── WorkerDied          .exitcode .signal
    │   ├── TaskTimeout         also a TimeoutError
    │   ├── MemoryLimitExceeded also a MemoryError
    │   ├── TaskKilled          future.kill() or shutdown(kill=True)
    │   └── NotSendable         the arguments or the result could not travel; says which
    ├── PoolClosed              also a RuntimeError
    ├── PoolBroken              also a concurrent.futures.BrokenExecutor
    ├── SoftTimeout             raised inside the task
    └── InternalError           a bug in resilient_exec; carries the story
        └── IllegalTransition

An exception that the task itself raised is never one of these: it comes back as it was, with its own
type and ``args``, and the remote traceback as its ``__cause__``.  Every class here pickles.
"""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
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
    error = cls(message)  # not by __new__: MemoryError has one of its own, which refuses to make others
    error.args = (message,)
    error.__dict__.update(state)
    return error


class ResilientError(Exception):
    """Root of all errors of this package."""

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception pickles as cls(*args) by default, which drops what __init__ takes by keyword.
        return _rebuild, (type(self), str(self), self.__dict__)


class AttemptError(ResilientError):
    """An attempt failed for a reason that is not the task's own exception, and no retry was left.

    Attributes:
        key: the task's key.
        attempt: the number of the last attempt that began (0: none did).
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
        # One positional argument only: an OSError (TaskTimeout is one) takes two for an errno.
        super().__init__(message)
        self.key = key
        self.attempt = attempt
        self.story = story
        self.stacks = stacks
        self.dossier = dossier
        if dossier is not None:
            self.add_note(str(dossier))


class WorkerDied(AttemptError):
    """The worker process ended while it ran the task: a signal, ``os._exit``, a crash of the interpreter.

    Attributes:
        exitcode: as ``multiprocessing`` gives it (negative: killed by that signal); ``None`` if not known.
    """

    exitcode: int | None = None

    @property
    def signal(self) -> str | None:
        """Name of the signal that killed the worker, or ``None``."""
        return signal_name(self.exitcode)


class TaskTimeout(AttemptError, TimeoutError):
    """An attempt was still running when its time was over: its ``timeout``, its ``soft_timeout`` (then ``__cause__`` is
    the :class:`SoftTimeout` that left the task), or the pool's ``stall_timeout``.
    """


class MemoryLimitExceeded(AttemptError, MemoryError):
    """The worker and its descendants held more than the ``memory_limit``, or the machine had nothing left for them."""


class TaskKilled(AttemptError):
    """The task was ended on request, by ``future.kill()`` or ``shutdown(kill=True)``."""


class NotSendable(AttemptError):
    """The function, an argument or the result could not be pickled or unpickled; the message names it."""


class PoolClosed(ResilientError, RuntimeError):
    """The pool takes no more tasks: it was shut down, or the interpreter is exiting, or this is a forked child."""


class PoolBroken(ResilientError, BrokenExecutor):
    """No worker could be started, several times in a row without progress; carries the worker's own words."""


class SoftTimeout(ResilientError):
    """Raised inside the task, in its main thread, when its ``soft_timeout`` is over: time to put things in order.

    One that leaves the task counts as a timeout.  It is raised once in an attempt; who swallows it has until the
    ``timeout``.  It is no ``TimeoutError``: that is an ``OSError``, which the standard library takes for an answer
    (struck by one, ``os.path.exists("/")`` was false in 19 of 20 cases, and ``os.walk`` ended early in 20 of 40).
    """


class InternalError(ResilientError):
    """This is a bug in resilient_exec: please report it, with the story in the message."""


class IllegalTransition(InternalError):
    """A task was asked to make a move that is not in the table of transitions; nothing was changed."""


# Tracebacks and pickles name the public door, whatever module of ours a class stands in: that path stays.
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

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

from resilient_exec.model.exit_status import signal_name
from resilient_exec.model.worker_errors import AttemptError, NotSendable, ResilientError, SoftTimeout

TYPE_CHECKING = False

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


class PoolClosed(ResilientError, RuntimeError):
    """The pool accepts no more tasks: it was shut down, the interpreter is exiting, or this is a forked child."""


class PoolBroken(ResilientError, BrokenExecutor):
    """Several starts of workers in a row failed; the message contains the last worker's own error text."""


class InternalError(ResilientError):
    """A bug in resilient_exec: please report it, with the story in the message."""


class IllegalTransition(InternalError):
    """A task was to make a transition that is not in the table of transitions; its state was not changed."""


# Tracebacks and pickles name the public package and not this module, so that a class may move without breaking pickles.
for _public in (
    InternalError,
    MemoryLimitExceeded,
    PoolBroken,
    PoolClosed,
    TaskKilled,
    TaskTimeout,
    WorkerDied,
):
    _public.__module__ = "resilient_exec"

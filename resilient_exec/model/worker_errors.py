"""The errors that the worker's half knows, too, and what they descend from: see :mod:`.errors`.

Apart from the others, one of which is a ``concurrent.futures.BrokenExecutor``: that takes 3 ms of each first result to
import.
"""

from __future__ import annotations

from pickle import PicklingError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable
    from typing import Any

    from resilient_exec.model.dossier import Dossier
    from resilient_exec.model.events import Event

__all__ = ["AttemptError", "NotSendable", "ResilientError", "SoftTimeout"]


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


class SoftTimeout(ResilientError):
    """Raised inside the task, in its main thread, when its ``soft_timeout`` is over, so that the task can clean up.

    If it leaves the task, the attempt counts as timed out.  It is raised once in an attempt; a task that catches it
    may run on until its ``timeout``.  It is not a ``TimeoutError``, because that is an ``OSError``, which the standard
    library catches and treats as an answer: when one was raised inside ``os.path.exists("/")``, the result was
    ``False`` in 19 of 20 cases, and ``os.walk`` ended early in 20 of 40.
    """


for _public in (AttemptError, NotSendable, ResilientError, SoftTimeout):  # as in errors.py
    _public.__module__ = "resilient_exec"

"""The ports: the interfaces of a retry policy, which the core asks, and of an observer, which the pool tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from resilient_exec.model.events import Event
    from resilient_exec.model.packed import Packed

__all__ = ["Failure", "Observer", "Policy"]


class Failure(NamedTuple):
    """The facts that a policy is given about a task whose attempt has just failed.

    Attributes:
        key: the task's key.
        cause: the kind of the outcome: ``"died"``, ``"timed_out"``, ``"raised"``, …
        counts: how many attempts of this task have failed so far, by cause, including this one, without evictions.
        attempts: how many attempts have begun, without those that were evicted, and those that a twin has outlived.
        elapsed: seconds since the first attempt began.
        exception: what the task raised, where ``cause`` is ``"raised"``; it may still be packed.
        ordinary: whether that is an ``Exception``.
        name: the key as a text; empty where printing it runs nobody's code.
    """

    key: Hashable
    cause: str
    counts: Mapping[str, int]
    attempts: int
    elapsed: float
    exception: BaseException | Packed | None
    ordinary: bool = False
    name: str = ""


class Policy(Protocol):
    """Decides whether a failed task gets another attempt.

    Attributes:
        asks_user: whether it runs code of the user's, which may hang: then it is asked on a thread of its own.
    """

    @property
    def asks_user(self) -> bool: ...  # noqa: D102

    def next_delay(self, failure: Failure) -> float | None:
        """Seconds to wait before the next attempt, or ``None``: no further attempt."""


class Observer(Protocol):
    """Is called with every event, on a thread of its own.  An observer that raises is logged and removed."""

    def __call__(self, event: Event, /) -> object:
        """Handle ``event``; what is returned is ignored."""

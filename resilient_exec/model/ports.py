"""The ports: what the core asks of a retry policy, and the pool of an observer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from resilient_exec.model.events import Event

__all__ = ["Failure", "Observer", "Policy"]


class Failure(NamedTuple):
    """What a policy is told about a task whose attempt has just failed.

    Attributes:
        key: the task's key.
        cause: the kind of the outcome: ``"died"``, ``"timed_out"``, ``"raised"``, …
        counts: how many attempts of this task have failed so far, by cause, with this one, without evictions.
        attempts: how many attempts have begun, those not counted that were evicted.
        elapsed: seconds since the first attempt began.
        exception: what the task raised, where ``cause`` is ``"raised"``.
    """

    key: Hashable
    cause: str
    counts: Mapping[str, int]
    attempts: int
    elapsed: float
    exception: BaseException | None


class Policy(Protocol):
    """Decides whether a failed task gets another attempt."""

    def next_delay(self, failure: Failure) -> float | None:
        """Seconds to wait before the next attempt, or ``None``: the failure stands."""


class Observer(Protocol):
    """Is told every event, on a thread of its own.  One that raises is logged and dropped."""

    def __call__(self, event: Event, /) -> object:
        """Take note of ``event``."""

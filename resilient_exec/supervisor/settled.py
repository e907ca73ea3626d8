"""``Settled``: how a task ended, as a plain record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from resilient_exec.model.progress import span
from resilient_exec.model.summary import named, summary

if TYPE_CHECKING:
    from collections.abc import Hashable

    from resilient_exec.supervisor.future import ResilientFuture

__all__ = ["Settled"]

_LONGEST_LINE = 200  # characters of an exception's text in a repr

T = TypeVar("T")


def _first_line(error: BaseException | None) -> str:
    """An exception in a line, whatever its ``__str__`` does."""
    try:
        text = str(error)
    except Exception:
        text = "(its text cannot be had)"
    line = text.partition("\n")[0][:_LONGEST_LINE]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


@dataclass(frozen=True, repr=False)
class Settled(Generic[T]):
    """How a task ended; its failure is a value here and is not raised.

    Attributes:
        index: position in the input.
        key: the task's key.
        ok: whether it returned.
        value: what it returned; ``None`` if it did not.
        error: what it raised, or an error that says what happened; ``None`` if it returned.
        attempts: how many attempts began.
        elapsed: seconds from the begin of the first attempt to the end.
    """

    index: int
    key: Hashable
    ok: bool
    value: T | None
    error: BaseException | None
    attempts: int
    elapsed: float

    def __repr__(self) -> str:
        how = f"returned {summary((self.value,), {})}" if self.ok else f"failed: {_first_line(self.error)}"
        tries = f"{self.attempts} attempt{'' if self.attempts == 1 else 's'}"
        return f"<Settled {self.index} {named(self.key)} {how}, {tries}, {span(self.elapsed)}>"

    @classmethod
    def of(cls, index: int, future: ResilientFuture[T]) -> Settled[T]:
        """From a future that is done."""
        from concurrent.futures import CancelledError

        error: BaseException | None
        value: T | None = None
        if future.cancelled():
            error = CancelledError()
        else:
            error = future.exception()
            value = future.result() if error is None else None
        future._know_the_end()
        return cls(index, future.key, error is None, value, error, future._attempts, future._elapsed)

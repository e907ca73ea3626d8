"""The budget of failed starts: when to try again, and when to give the pool up."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resilient_exec.core.states import Limits

__all__ = ["Starts"]


class Starts:
    """Counts failed starts in a row, and owns the timer that holds further ones back after one has failed."""

    def __init__(self, limits: Limits) -> None:
        self.timer = 0
        self._limits = limits
        self._failed = 0  # in a row

    def succeeded(self) -> None:
        """A worker is up: whatever failed before is forgiven."""
        self._failed = self.timer = 0

    def failed(self, words: str, *, hopeless: bool) -> str | None:
        """One more has failed, saying ``words``; why the pool is broken, if it now is.

        ``hopeless``: something waits, and no worker is alive or on its way.
        """
        self._failed += 1
        if not hopeless or self._failed < self._limits.start_failures:
            return None
        return (
            f"no worker could be started, {self._failed} times in a row; the last one said: {words}\n"
            "Mend what it complains of (the initializer? an import? a limit on memory or processes?), "
            "then make a new pool."
        )

    def wait(self) -> float:
        """Seconds until the next start may be tried."""
        wait = self._limits.first_start_wait * 2 ** min(self._failed - 1, 20)
        return float(min(wait, self._limits.longest_start_wait))

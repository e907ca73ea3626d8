"""The budget of failed starts: when to try again, and when to give the pool up."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resilient_exec.core.states import Limits

__all__ = ["Starts"]


class Starts:
    """Counts failed starts by cause and time, and owns the timer that holds further ones back after one has failed.

    What many lanes see at once (a service that does not answer for a moment, no descriptor left, the death of the
    forkserver) is one failure.  So failures count once for each span in which starts are held back, and all of them
    must have been spread over ``limits.start_patience`` seconds; but what can never work is not waited for.
    """

    def __init__(self, limits: Limits) -> None:
        self.timer = 0
        self._limits = limits
        self._rounds = 0  # in a row, without a worker that came up
        self._since = 0.0  # when the first of them failed
        self._until = 0.0  # what fails before belongs to the same round

    def succeeded(self) -> None:
        """A worker is up: whatever failed before is forgiven."""
        self._rounds = self.timer = 0

    def failed(self, now: float, words: str, *, hopeless: bool, lasting: bool) -> str | None:
        """One more has failed, saying ``words``; why the pool is broken, if it now is.

        Args:
            now: the time (s).
            words: what it said.
            hopeless: something waits, and no worker is alive or on its way.
            lasting: it will fail for ever.
        """
        if not self._rounds:
            self._since = now
        if not self._rounds or now >= self._until:
            self._rounds += 1
            self._until = now + self.wait()
        spread = now - self._since
        is_over = lasting or spread >= self._limits.start_patience
        if not hopeless or not is_over or self._rounds < self._limits.start_failures:
            return None
        return (
            f"no worker could be started, {self._rounds} times in a row within {spread:.1f} s; the last one said: "
            f"{words}\n"
            "Mend what it complains of (the initializer? an import? a limit on memory or processes?), "
            "then make a new pool."
        )

    def wait(self) -> float:
        """Seconds until the next start may be tried."""
        wait = self._limits.first_start_wait * 2 ** min(self._rounds - 1, 20)
        return float(min(wait, self._limits.longest_start_wait))

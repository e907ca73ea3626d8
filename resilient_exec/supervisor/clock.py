"""The clock that deadlines are judged by: it stands still while the process did."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SteadyClock"]

_LAG = 0.25  # s: what its reader may be late before it counts as stopped


class SteadyClock:
    """A monotonic clock that stands still while its reader was stopped."""

    def __init__(self, source: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._seen = source()
        self._zero = self._seen
        self._was_late = False

    def read(self, waited: float | None = 0.0) -> float:
        """Seconds so far.  ``waited``: how long the reader meant to wait since it read last (``None``: for ever)."""
        now = self._source()
        late = 0.0 if waited is None else now - self._seen - waited
        if late > _LAG:
            # The planned wait too: nobody knows when in it the stop began, and on waking nobody must be killed for it.
            # But only once in a row, or one who is late each time would never see a deadline.
            self._zero += late if self._was_late else now - self._seen
        if waited:
            self._was_late = late > _LAG
        self._seen = now
        return now - self._zero

    @property
    def last(self) -> float:
        """What was read last."""
        return self._seen - self._zero

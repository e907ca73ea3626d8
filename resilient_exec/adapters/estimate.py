"""How long a tournament will still take, from how long its tasks have taken and the number of lanes."""

from __future__ import annotations

import heapq
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["seconds_left"]


def seconds_left(
    waiting: int, running: Sequence[float], took: Sequence[float], lanes: int, limit: float | None = None
) -> float | None:
    """Seconds until the last task has ended; ``None``: nobody can tell yet.

    Args:
        waiting: tasks that have not begun.
        running: for how long each of those has run that are running, seconds.
        took: for how long each of those ran that have ended, failed ones included, seconds.
        lanes: how many run at the same time.
        limit: seconds after which a task is ended.
    """
    if not took:
        return None
    mean = fmean(took)
    # One that has run for t is like those that took longer than t; longer than all: nobody knows, half as long again.
    left = []
    for elapsed in running:
        longer = [one - elapsed for one in took if one > elapsed]
        rest = fmean(longer) if longer else 0.5 * elapsed
        left.append(min(rest, max(0.0, limit - elapsed)) if limit is not None else rest)
    free_at = left[:lanes] + [0.0] * max(0, lanes - len(left))
    heapq.heapify(free_at)
    for _ in range(waiting):
        heapq.heappush(free_at, heapq.heappop(free_at) + mean)
    return max(free_at)

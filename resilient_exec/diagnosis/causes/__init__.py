"""The causes that are recognised: each diagnoser is pure, and says nothing unless all of its evidence is there.

The order counts: what stops others from going on comes before what it looks like from their side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_exec.diagnosis.causes import deaths, forks, kernel, locks, pipes, pools, recycling, tournaments

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_exec.diagnosis.cause import Cause
    from resilient_exec.diagnosis.facts import Scene

__all__ = ["DIAGNOSERS", "diagnose"]

DIAGNOSERS: tuple[Callable[[Scene], Cause | None], ...] = (
    kernel.stopped,
    kernel.out_of_memory,
    recycling.workers_not_replaced,
    pools.result_handler_dead,
    deaths.unguarded_main,
    deaths.dying_at_start,
    deaths.lock_of_the_dead,
    deaths.half_a_message,
    deaths.lost_task,
    forks.nobody_to_release,
    locks.deadlock,
    pools.waits_for_itself,
    pipes.nobody_reads,
    kernel.waits_for_stdin,
    kernel.throttled,
)


def diagnose(scene: Scene) -> Cause | None:
    """The first cause whose evidence is complete; ``None``: none is known."""
    for diagnoser in DIAGNOSERS:
        cause = diagnoser(scene)
        if cause is not None:
            return tournaments.told_of(cause, scene)
    return None

"""A pool at one moment: the counts of its tasks, what each lane does, and both as text."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from resilient_exec.model.progress import span
from resilient_exec.model.summary import named

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resilient_exec.supervisor.loop import Supervisor

__all__ = ["Snapshot", "counts_of", "in_words"]

_MIB = 1 << 20
_COUNTS = ("pending", "running", "backing_off", "done", "failed", "cancelled")
_ALWAYS = ("pending", "running")  # told when there are none, too


class Snapshot(dict[str, Any]):
    """What ``pool.snapshot()`` returns: a dictionary, which prints as a line of counts and a line for each lane."""

    @classmethod
    def of(cls, supervisor: Supervisor, dropped_logs: int) -> Snapshot:
        """Return the snapshot of a pool, taken from its supervisor."""
        lanes = [{**lane, **_usage(lane["pid"])} for lane in supervisor.core.lanes(supervisor.now())]
        dropped = supervisor.dropped_events
        return cls(counts_of(supervisor), dropped_events=dropped, dropped_logs=dropped_logs, lanes=lanes)

    @classmethod
    def of_none(cls) -> Snapshot:
        """Return the snapshot of a pool that has never had a task."""
        return cls(dict.fromkeys(_COUNTS, 0), dropped_events=0, dropped_logs=0, lanes=[])

    def __str__(self) -> str:
        return "\n".join([in_words(self), *map(_line, self["lanes"])])


def counts_of(supervisor: Supervisor) -> dict[str, int]:
    """How many tasks are in which state."""
    ended = supervisor.core.ended
    return {
        **supervisor.core.counted(),
        "done": ended["done"],
        "failed": ended["failed"],
        "cancelled": ended["cancelled"],
    }


def in_words(counts: Mapping[str, Any]) -> str:
    """Such as ``3 pending, 1 running, 17 done``."""
    return ", ".join(f"{counts[n]} {n.replace('_', ' ')}" for n in _COUNTS if counts[n] or n in _ALWAYS)


def _line(lane: Mapping[str, Any]) -> str:
    parts = [f"lane {lane['lane']} {lane['state']}"]
    if lane["pid"] is not None:
        parts.append(f"worker {lane['pid']}")
    if lane["attempt"]:
        parts.append(f"task {named(lane['key'])}, attempt {lane['attempt']}, {span(lane['elapsed'] or 0.0)}")
    if lane["rss"] is not None:
        parts.append(f"{lane['rss'] / _MIB:.0f} MiB, {span(lane['cpu'])} of CPU")
    return ": ".join([parts[0], ", ".join(parts[1:])]) if len(parts) > 1 else parts[0]


def _usage(pid: int | None) -> dict[str, Any]:
    import psutil

    if pid is not None:
        with contextlib.suppress(psutil.Error, OSError):  # OSError: no descriptor left to look with
            process = psutil.Process(pid)
            times = process.cpu_times()
            return {"rss": process.memory_info().rss, "cpu": times.user + times.system}
    return {"rss": None, "cpu": None}

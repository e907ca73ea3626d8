"""How far a tournament has come: counted while it runs, and kept in ``progress.json``."""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import dataclass
from socket import gethostname
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters import places
from resilient_exec.adapters.estimate import seconds_left

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from resilient_exec.adapters.negmas.report.task_report import TaskReport

__all__ = ["FILE_NAME", "VERSION", "Progress", "Running"]

FILE_NAME = "progress.json"
VERSION = 1
_WRITE_EVERY = 1.0  # s between two writings of the file, unless something ends

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Running:
    """One task that runs now.

    Attributes:
        name: as in its report.
        competitors: in it.
        attempt: its number.
        since: when the attempt began (``time.time``).
        pid: of the worker.
    """

    name: str
    competitors: tuple[str, ...]
    attempt: int
    since: float
    pid: int | None = None


class Progress:
    """How far a running tournament is.

    Args:
        kind: ``worlds`` or ``negotiations``.
        name: of the tournament.
        folder: of the tournament; ``None``: nothing is written.
        planned: number of tasks.
        lanes: how many run at the same time.

    Attributes:
        counts: how many tasks have which status.
        running: those that run, by name.
        took: seconds for which each task ran that has settled in this run.
        limit: seconds after which an attempt is ended, at most; ``None``: never.
    """

    def __init__(self, kind: str, name: str, folder: Path | None, planned: int, lanes: int) -> None:
        self.kind, self.name, self.folder, self.planned, self.lanes = kind, name, folder, planned, lanes
        self.begun = time.time()
        self.counts: dict[str, int] = {}
        self.running: dict[str, Running] = {}
        self.took: list[float] = []
        self.limit: float | None = None
        self._written = -_WRITE_EVERY
        self.is_written = False

    @property
    def settled(self) -> int:
        """Tasks of which it is known what became of them."""
        return sum(self.counts.values())

    @property
    def scored(self) -> int:
        """Tasks with a score, from this run or an earlier one."""
        return self.counts.get("scored", 0) + self.counts.get("scored before", 0)

    def begins(self, one: Running) -> None:
        """An attempt begins."""
        self.running[one.name] = one
        self.is_written = False

    def settles(self, told: TaskReport) -> None:
        """A task has settled."""
        self.running.pop(told.name, None)
        self.counts[told.status] = self.counts.get(told.status, 0) + 1
        if told.duration is not None:
            self.took.append(told.duration)
        self.is_written = False

    def seconds_left(self, now: float) -> float | None:
        """Until the end; ``None``: nobody can tell yet."""
        running = [max(0.0, now - one.since) for one in self.running.values()]
        waiting = max(0, self.planned - self.settled - len(running))
        return seconds_left(waiting, running, self.took, self.lanes, self.limit)

    def write(self, *, at_once: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        """Into the folder, if something has changed, and not too often."""
        if self.folder is None or self.is_written or (not at_once and clock() - self._written < _WRITE_EVERY):
            return
        self._written, self.is_written = clock(), True
        try:
            places.replace(self.folder, FILE_NAME, json.dumps(self.to_dict(), indent=1) + "\n")
        except OSError as error:
            _logger.warning("progress could not be written into %s: %s", self.folder, error)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "version": VERSION,
            "kind": self.kind,
            "name": self.name,
            "planned": self.planned,
            "lanes": self.lanes,
            "begun": self.begun,
            "updated": time.time(),
            "host": gethostname(),
            "pid": os.getpid(),
            "counts": dict(self.counts),
            "running": [vars(one) for one in self.running.values()],
            "took": self.took[-200:],
            "limit": self.limit,
        }

"""What became of each task of a tournament: kept while it runs, told at its end.

Nothing is dropped in silence: a world that has no score is named, with its competitors and the reason, on stderr,
in ``resilient/report.json`` beside the results, by :func:`last_report`, and by one :class:`ResilientWarning`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import platform
import time
import warnings
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters import places
from resilient_exec.adapters.negmas.report import audience
from resilient_exec.adapters.negmas.report.coverage import Coverage, coverage, remark
from resilient_exec.adapters.negmas.report.failures import Failure, failures
from resilient_exec.adapters.negmas.report.progress import Progress
from resilient_exec.adapters.negmas.report.task_report import TaskReport, Verified
from resilient_exec.adapters.worker_output import tell_stderr

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from resilient_exec.adapters.negmas.blame.health import Health

__all__ = ["FILE_NAME", "Recorder", "Report", "ResilientWarning", "last_report"]

FILE_NAME = "report.json"
VERSION = 2
"""Of the file: ``docs/report.schema.json`` describes it.  Version 1 had no number, and named worlds by their run id."""
_FAILURES_SHOWN = 12  # on stderr; the file has all

_logger = logging.getLogger(__name__)


class ResilientWarning(UserWarning):
    """A tournament has ended without the score of every world (or the record of every negotiation)."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of a tournament.

    Attributes:
        kind: ``worlds`` or ``negotiations``.
        name: of the tournament.
        folder: of its results; ``None`` where it keeps none.
        planned: number of world sets (or negotiations) of the tournament.
        tasks: a report for each, in the order in which they settled.
        workers: number of lanes.
        start, end: of this run of it, local time with its offset (ISO 8601).
        seconds: wall time.
        ended_by: what ended the tournament early (``total_timeout``, ``KeyboardInterrupt`` …); ``""``: nothing did.
        verified: world sets that were run twice (``options(verify=...)``), and whether their scores were the same.
        callback_errors: what the caller's progress callback raised; the results were saved all the same.
        versions: of everything that matters.
        health: of each competitor, in world tournaments.
        unwatched: functions of negmas through which agents' code is entered, and which this version does not have.
    """

    kind: str
    name: str
    folder: str | None
    planned: int
    tasks: tuple[TaskReport, ...] = ()
    workers: int = 0
    start: str = ""
    end: str = ""
    seconds: float = 0.0
    ended_by: str = ""
    verified: tuple[Verified, ...] = ()
    callback_errors: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    health: tuple[Health, ...] = ()
    unwatched: tuple[str, ...] = ()

    @property
    def scored(self) -> int:
        """How many have a score."""
        return sum(task.is_scored for task in self.tasks)

    @property
    def scored_before(self) -> int:
        """How many of them were found finished when the tournament was resumed."""
        return sum(task.status == "scored before" for task in self.tasks)

    @property
    def missing(self) -> tuple[TaskReport, ...]:
        """Tasks without a score: failed, interrupted, or not run."""
        return tuple(task for task in self.tasks if task.status in {"failed", "interrupted", "not run"})

    @property
    def failures(self) -> list[Failure]:
        """The missing tasks, each kind of failure once: by competitor and cause."""
        return failures(self.missing)

    @property
    def file(self) -> Path | None:
        """Where this report is written; ``None`` where the tournament keeps no folder."""
        return None if self.folder is None else Path(self.folder) / places.FOLDER / FILE_NAME

    @property
    def retried(self) -> tuple[TaskReport, ...]:
        """Tasks that took more than one attempt."""
        return tuple(task for task in self.tasks if task.attempts > 1)

    @property
    def coverage(self) -> dict[str, Coverage]:
        """In how many of its worlds each competitor was scored."""
        return coverage(self.tasks)

    @property
    def bias(self) -> str:
        """What has to be said beside the ranking; ``""`` if everything was scored."""
        return remark(self.coverage, self.kind)

    @property
    def blind(self) -> str:
        """What has to be said beside :attr:`health` and about who was on stage; ``""`` with a negmas that is known."""
        if not self.unwatched:
            return ""
        return (
            f"negmas {self.versions.get('negmas', '')} has no {', '.join(self.unwatched)}: who was on stage when a "
            "world failed, and what agents took, may be missing or another one's; versions 0.11 to 0.16 are known"
        )

    @property
    def unsteady(self) -> tuple[Verified, ...]:
        """World sets whose scores were not the same when they were run again."""
        return tuple(one for one in self.verified if one.difference)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; what is empty in a task is left out."""
        counts = {"scored": self.scored, "scored_before": self.scored_before}
        for status in ("failed", "interrupted", "not run"):
            counts[status.replace(" ", "_")] = sum(task.status == status for task in self.tasks)
        counts["retried"] = len(self.retried)
        whole = asdict(self)
        covered = {name: asdict(one) for name, one in self.coverage.items()}
        whole |= {"tasks": [_without_empty(task) for task in whole["tasks"]], "counts": counts, "coverage": covered}
        words = [one.words(one.competitor, self.kind) for one in self.failures]
        return {"version": VERSION, **whole, "failures": words, "bias": self.bias, "blind": self.blind}

    def __str__(self) -> str:
        lines = [f"resilient_exec: {self.scored} of {self.planned} {self.kind} scored ({self.name})"]
        if self.ended_by:
            lines.append(f"  ended early by {self.ended_by}")
        if self.retried:
            lines.append(f"  {len(self.retried)} took more than one attempt")
        told = self.failures
        lines += [f"  {one.words(one.competitor, self.kind)}" for one in told[:_FAILURES_SHOWN]]
        if len(told) > _FAILURES_SHOWN:
            lines.append(f"  and {len(told) - _FAILURES_SHOWN} other kinds of failures")
        lines += [f"  {remark}" for remark in (self.bias, self.blind) if remark]
        if self.unsteady:
            lines.append(f"  {len(self.unsteady)} of {len(self.verified)} that were run twice did not follow the seed:")
            lines += [f"    {one}" for one in self.unsteady]
        lines += [f"  the progress callback raised {error}" for error in self.callback_errors]
        if self.file is not None:
            lines.append(f"  the evidence of each, and all else: {self.file}")
        return "\n".join(lines)


class _Last:
    report: Report | None = None


def last_report() -> Report | None:
    """The report of the tournament that ended last in this process; ``None`` before the first one."""
    return _Last.report


class Recorder:
    """Collects what becomes of each task, and tells it at the end."""

    def __init__(self, kind: str, name: str, folder: Path | None, planned: int, workers: int = 0) -> None:
        self._facts: dict[str, Any] = {"kind": kind, "name": name, "planned": planned, "workers": workers}
        self._folder = folder
        self._begin = time.monotonic()
        self._start = _now()
        self._tasks: list[TaskReport] = []
        self.progress = Progress(kind, name, folder, planned, workers)
        self._callback_errors: list[str] = []
        self.ended_by = ""
        self.verified: list[Verified] = []
        self.unwatched: tuple[str, ...] = ()

    def add(self, task: TaskReport) -> None:
        """Add a task that has settled."""
        self._tasks.append(task)
        self.progress.settles(task)

    def callback_failed(self, error: Exception) -> None:
        """The caller's callback has raised."""
        self._callback_errors.append(f"{type(error).__name__}: {error}")

    def finish(self, health: tuple[Health, ...] = ()) -> Report:
        """Make the report, keep it, write it beside the results, and name what has no score."""
        report = Report(
            **self._facts,
            folder=None if self._folder is None else str(self._folder),
            tasks=tuple(self._tasks),
            start=self._start,
            end=_now(),
            seconds=round(time.monotonic() - self._begin, 3),
            ended_by=self.ended_by,
            verified=tuple(self.verified),
            callback_errors=tuple(self._callback_errors),
            versions=_versions(),
            health=health,
            unwatched=self.unwatched,
        )
        _Last.report = report
        if self._folder is not None:
            _write(report, self._folder)
            self.progress.write(at_once=True)
        listener = audience.current()
        if listener is not None:
            listener.ended()
        elif report.missing or report.unsteady or report.callback_errors or report.unwatched:
            tell_stderr(f"{report}\n")
        return report


def all_scored_before(
    folder: Path, params: dict[str, Any], competitors: Mapping[str, tuple[str, ...]], health: tuple[Health, ...]
) -> None:
    """Report a tournament that was resumed with nothing left to run: negmas does not get as far as to its worlds.

    Args:
        folder: of the tournament.
        params: as negmas has stored them.
        competitors: in each world set, by the name of its folder.
        health: of the competitors, by what earlier runs have left.
    """
    planned = int(params.get("n_worlds") or 0)
    recorder = Recorder("worlds", str(params.get("name", folder.name)), folder, planned)
    for path in sorted(folder.glob("*/results.json")):
        who = competitors.get(path.parent.name, ())
        where = str(path.parent)
        recorder.add(TaskReport(name=path.parent.name, path=where, status="scored before", competitors=who))
    recorder.finish(health)


def warn(report: Report) -> None:
    """The one warning about a tournament: scores are missing or do not follow its seed, or who is guilty is unknown."""
    if audience.current() is not None:
        return  # who listens has been told
    if report.missing:
        told = report.failures
        more = f"; and {len(told) - 1} other kinds of failures" if len(told) > 1 else ""
        text = f"{len(report.missing)} of {report.planned} {report.kind} have no score: "
        text += f"{told[0].words(told[0].competitor, report.kind)}{more}"
        where = f"; see {report.file}" if report.file is not None else "; see last_report()"
        warnings.warn(text + where, ResilientWarning, stacklevel=2)
    elif report.unsteady:
        text = (
            f"{len(report.unsteady)} of {len(report.verified)} {report.kind} had other scores when they were run again"
        )
        warnings.warn(f"{text}: {report.unsteady[0]}", ResilientWarning, stacklevel=2)
    elif report.blind:
        warnings.warn(report.blind, ResilientWarning, stacklevel=2)


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def _without_empty(values: dict[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in values.items() if value not in ("", None, ())}
    if "failed_attempts" in found:
        found["failed_attempts"] = [_without_empty(one) for one in found["failed_attempts"]]
    return found


def _write(report: Report, folder: Path) -> None:
    try:
        places.replace(folder, FILE_NAME, json.dumps(report.to_dict(), indent=1, default=str) + "\n")
    except OSError as error:
        # A full disk must not cost the results that are in memory or written already.
        _logger.warning("the report could not be written into %s: %s", folder, error)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("resilient-exec", "negmas", "scml", "pandas", "loky"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def named(items: Sequence[Any]) -> tuple[str, ...]:
    """Types and names as a tuple of different strings, in order of appearance."""
    names = (item if isinstance(item, str) else getattr(item, "__name__", str(item)) for item in items)
    return tuple(dict.fromkeys(names))

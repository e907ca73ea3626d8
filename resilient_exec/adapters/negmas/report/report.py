"""What became of each task of a tournament: kept while it runs, told at its end.

Nothing is dropped in silence: a world that has no score is named, with its competitors and the reason, on stderr,
in ``resilient-report.json`` beside the results, by :func:`last_report`, and by one :class:`ResilientWarning`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import platform
import time
import traceback
import warnings
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters.negmas.report.coverage import Coverage, coverage, remark
from resilient_exec.adapters.negmas.report.task_report import TaskReport, Verified
from resilient_exec.adapters.worker_output import tell_stderr
from resilient_exec.model.errors import AttemptError, WorkerDied
from resilient_exec.model.exit_status import signal_name
from resilient_exec.wire.payload import RemoteTraceback

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from resilient_exec.adapters.negmas.blame.health import Health
    from resilient_exec.model.events import Event

__all__ = ["FILE_NAME", "Recorder", "Report", "ResilientWarning", "last_report"]

FILE_NAME = "resilient-report.json"
_STACK_LINES = 12  # of a worker's stacks shown on stderr; the file has all
_STACKS_SHOWN = 5  # failures whose stacks are shown there

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
        """Those without a score: failed, or not run."""
        return tuple(task for task in self.tasks if task.status in {"failed", "not run"})

    @property
    def retried(self) -> tuple[TaskReport, ...]:
        """Those that took more than one attempt."""
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
        """As plain values; what is empty in a task is left out."""
        counts = {"scored": self.scored, "scored_before": self.scored_before}
        counts |= {"failed": sum(task.status == "failed" for task in self.tasks)}
        counts |= {"not_run": sum(task.status == "not run" for task in self.tasks), "retried": len(self.retried)}
        whole = asdict(self)
        tasks = [{key: value for key, value in task.items() if value not in ("", None, ())} for task in whole["tasks"]]
        covered = {name: asdict(one) for name, one in self.coverage.items()}
        return {**whole, "tasks": tasks, "counts": counts, "coverage": covered, "bias": self.bias, "blind": self.blind}

    def __str__(self) -> str:
        lines = [f"resilient_exec: {self.scored} of {self.planned} {self.kind} scored ({self.name})"]
        if self.ended_by:
            lines.append(f"  ended early by {self.ended_by}")
        if self.retried:
            lines.append(f"  {len(self.retried)} took more than one attempt")
        shown = 0
        for task in self.missing:
            lines.append(f"  {task}")
            if task.stacks and shown < _STACKS_SHOWN:
                shown += 1
                stacks = task.stacks.strip().splitlines()
                lines += [f"    | {line}" for line in stacks[:_STACK_LINES]]
        lines += [f"  {remark}" for remark in (self.bias, self.blind) if remark]
        if self.unsteady:
            lines.append(f"  {len(self.unsteady)} of {len(self.verified)} that were run twice did not follow the seed:")
            lines += [f"    {one}" for one in self.unsteady]
        lines += [f"  the progress callback raised {error}" for error in self.callback_errors]
        if self.folder is not None:
            lines.append(f"  report: {Path(self.folder) / FILE_NAME}")
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
        self._tasks: list[TaskReport] = []
        self._callback_errors: list[str] = []
        self.ended_by = ""
        self.verified: list[Verified] = []
        self.unwatched: tuple[str, ...] = ()

    def add(self, task: TaskReport) -> None:
        """One task has settled."""
        self._tasks.append(task)

    def callback_failed(self, error: Exception) -> None:
        """The caller's callback has raised."""
        self._callback_errors.append(f"{type(error).__name__}: {error}")

    def finish(self, health: tuple[Health, ...] = ()) -> Report:
        """Make the report, keep it, write it beside the results, and name what has no score."""
        report = Report(
            **self._facts,
            folder=None if self._folder is None else str(self._folder),
            tasks=tuple(self._tasks),
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
        if report.missing or report.unsteady or report.callback_errors or report.unwatched:
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
        recorder.add(TaskReport(name=path.parent.name, status="scored before", competitors=who))
    recorder.finish(health)


def warn(report: Report) -> None:
    """The one warning about a tournament: scores are missing or do not follow its seed, or who is guilty is unknown."""
    if report.missing:
        some = ", ".join(task.name for task in report.missing[:3])
        more = f" and {len(report.missing) - 3} more" if len(report.missing) > 3 else ""
        text = f"{len(report.missing)} of {report.planned} {report.kind} have no score: {some}{more}"
        where = f"; see {Path(report.folder) / FILE_NAME}" if report.folder is not None else "; see last_report()"
        warnings.warn(text + where, ResilientWarning, stacklevel=2)
    elif report.unsteady:
        text = (
            f"{len(report.unsteady)} of {len(report.verified)} {report.kind} had other scores when they were run again"
        )
        warnings.warn(f"{text}: {report.unsteady[0]}", ResilientWarning, stacklevel=2)
    elif report.blind:
        warnings.warn(report.blind, ResilientWarning, stacklevel=2)


def failure(error: BaseException, story: Iterable[Event]) -> dict[str, Any]:
    """The fields of a :class:`TaskReport` that tell of ``error``."""
    fields: dict[str, Any] = {"reason": _reason(error), "history": history(story)}
    if isinstance(error, WorkerDied):
        fields |= {"signal": error.signal, "exitcode": error.exitcode}
    if isinstance(error, AttemptError):
        fields["stacks"] = error.stacks
    else:
        fields["traceback"] = trace(error)
    return fields


def trace(error: BaseException) -> str:
    """The traceback of ``error`` where it was raised, in the worker."""
    cause = error.__cause__
    return (cause.text if isinstance(cause, RemoteTraceback) else "".join(traceback.format_exception(error))).strip()


def history(story: Iterable[Event]) -> tuple[str, ...]:
    """How each attempt ended, except one that returned."""
    return tuple(words for event in story if (words := _ending(event)))


def _ending(event: Event) -> str:
    detail = event.detail
    match event.kind:
        case "died":
            code = detail.get("exitcode")
            return f"died: {signal_name(code) or f'exit code {code}'}"
        case "timed_out":
            return f"timed out after {detail.get('limit'):g} s"
        case "out_of_memory":
            return f"held {detail['used'] / 2**20:.0f} MiB, more than {detail['limit'] / 2**20:.0f} MiB"
        case "raised":
            return f"raised {detail.get('exception')}"
        case "killed" | "lost" | "not_sent" | "evicted":
            return f"{event.kind.replace('_', ' ')}: {detail.get('why')}"
    return ""


def _reason(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, AttemptError):
        return text
    return f"it raised {type(error).__name__}{f': {text}' if text else ''}"


def _write(report: Report, folder: Path) -> None:
    path = folder / FILE_NAME
    draft = path.with_suffix(".tmp")
    try:
        draft.write_text(json.dumps(report.to_dict(), indent=1, default=str) + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        # A full disk must not cost the results that are in memory or written already.
        _logger.warning("the report could not be written to %s: %s", path, error)


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

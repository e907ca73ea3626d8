"""The fields of a report that tell of a task's attempts: when they ran, how they failed, what they left behind."""

from __future__ import annotations

import logging
import time
import traceback
from datetime import datetime
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters import places
from resilient_exec.adapters.negmas.blame import stacks
from resilient_exec.adapters.negmas.report.task_report import FailedAttempt
from resilient_exec.model.errors import AttemptError, WorkerDied
from resilient_exec.model.exit_status import signal_name
from resilient_exec.wire.payload import RemoteTraceback

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from resilient_exec.model.dossier import AttemptReport
    from resilient_exec.model.events import Event

__all__ = ["Clock", "evidence", "failure", "history", "trace"]

_FAILED = ("raised", "died", "timed_out", "out_of_memory", "evicted", "killed", "not_sent", "lost")
_logger = logging.getLogger(__name__)


class Clock:
    """Tells the time of day at which an event happened: events know seconds since their pool was made."""

    def __init__(self) -> None:
        self._zero: float | None = None

    def hear(self, at: float) -> None:
        """An event that happened at ``at`` is told now, or a moment later."""
        zero = time.time() - at
        self._zero = zero if self._zero is None else min(self._zero, zero)

    def at(self, at: float) -> str:
        """Return the moment in local time with its offset (ISO 8601)."""
        zero = time.time() - at if self._zero is None else self._zero
        return datetime.fromtimestamp(zero + at).astimezone().isoformat(timespec="milliseconds")


def evidence(clock: Clock, attempts: Sequence[AttemptReport], folder: Path | None = None) -> dict[str, Any]:
    """The fields about when a task ran, and what is known of the attempts that failed.

    Args:
        clock: which has heard the events of the pool.
        attempts: of the task's dossier.
        folder: of the world set; the evidence of each failed attempt is written there as text, too.
    """
    begun = [attempt for attempt in attempts if attempt.number]
    if not begun:
        return {}
    failed = tuple(_failed(clock, attempt, folder) for attempt in begun if attempt.outcome in _FAILED)
    end = begun[-1].started + begun[-1].duration
    return {
        "start": clock.at(begun[0].started),
        "end": clock.at(end),
        "duration": round(end - begun[0].started, 3),
        "failed_attempts": failed,
        "log": log_of(folder, begun[-1].number),
    }


def log_of(folder: Path | None, attempt: int) -> str:
    """The path of the file with what an attempt printed; ``""``: there is none."""
    if folder is None:
        return ""
    path = folder / places.FOLDER / places.output_name(attempt)
    return str(path) if path.exists() else ""


def _failed(clock: Clock, attempt: AttemptReport, folder: Path | None) -> FailedAttempt:
    told: dict[str, Any] = {
        "number": attempt.number,
        "outcome": attempt.outcome,
        "reason": _words(attempt),
        "pid": attempt.pid,
        "start": clock.at(attempt.started),
        "duration": round(attempt.duration, 3),
        "exitcode": attempt.exitcode,
        "signal": attempt.signal,
        "stacks": stacks.for_people(attempt.stacks),
        "traceback": stacks.users_traceback(attempt.traceback),
        "memory": tuple((round(at, 1), size) for at, size in attempt.memory),
        "peak_memory": attempt.peak_memory,
        "remark": attempt.remark,
        "log": log_of(folder, attempt.number),
    }
    return FailedAttempt(**told, evidence=_written(told, folder))


def _written(told: dict[str, Any], folder: Path | None) -> str:
    if folder is None:
        return ""
    lines = [f"attempt {told['number']}: {told['reason']}", f"began {told['start']}, lasted {told['duration']:.3g} s"]
    lines += [told["remark"]] if told["remark"] else []
    lines += [f"what it printed: {told['log']}"] if told["log"] else []
    if told["memory"]:
        lines.append("memory: " + ", ".join(f"{size / 2**20:.0f} MiB at {at:.1f} s" for at, size in told["memory"]))
    for name in ("traceback", "stacks"):
        if told[name]:
            lines += ["", told[name]]
    try:
        folder.mkdir(parents=True, exist_ok=True)  # of a world that was never made there is none
        return str(places.replace(folder, f"attempt-{told['number']}.txt", "\n".join(lines) + "\n"))
    except OSError as error:
        _logger.warning("the evidence of an attempt could not be written into %s: %s", folder, error)
        return ""


def failure(error: BaseException, story: Iterable[Event], attempts: Sequence[AttemptReport] = ()) -> dict[str, Any]:
    """The fields of a :class:`TaskReport` that tell of ``error``."""
    fields: dict[str, Any] = {"reason": _reason(error, attempts), "history": history(story)}
    if isinstance(error, WorkerDied):
        fields |= {"signal": error.signal, "exitcode": error.exitcode}
    if isinstance(error, AttemptError):
        fields["stacks"] = stacks.for_people(error.stacks)
    else:
        fields["traceback"] = stacks.users_traceback(trace(error))
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


def _reason(error: BaseException, attempts: Sequence[AttemptReport]) -> str:
    text = str(error)
    if not isinstance(error, AttemptError):
        return f"it raised {type(error).__name__}{f': {text}' if text else ''}"
    last = attempts[-1] if attempts else None
    if last is None or last.outcome not in _FAILED or not last.number:
        return text
    # Without the advice that the error has for whoever has called the pool.
    words = _words(last)
    who = "" if words.startswith("its ") else "it "
    return who + words + (f" (in attempt {last.number})" if last.number > 1 else "")


def _words(attempt: AttemptReport) -> str:
    return attempt.reason.removeprefix("failed because ")  # where it is told of the task, and not of its worker

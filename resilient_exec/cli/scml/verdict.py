"""What is to be said against an agent after its trial: problems with their evidence and remedy, and its figures."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters.text import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resilient_exec.adapters.negmas import Report, TaskReport
    from resilient_exec.adapters.negmas.blame.health import Health

__all__ = ["Problem", "figures", "problems_of"]

MUCH = 10 << 20
"""Bytes that a world may print before that is a problem."""
_MIB = 2**20
_STACK_LINES = 8
_VERBS = {
    "timed_out": "hangs",
    "died": "ends its process",
    "out_of_memory": "takes too much memory",
    "raised": "raises",
}
_REMEDIES = {
    "timed_out": "find the loop or the wait that does not end there; a world has {timeout:g} s (--timeout)",
    "died": "find what ends the process: os._exit, sys.exit in C code, a crash of a native library; run it alone "
    "in a script with `python -X faulthandler`",
    "out_of_memory": "look for what grows with each step (lists, caches, histories); the limit is --memory-limit",
    "raised": "mend what raises, or catch it there: in a league this world has no score",
    "": "look at the evidence below",
}


@dataclass(frozen=True)
class Problem:
    """One thing that speaks against the agent.

    Attributes:
        what: in one line.
        evidence: lines of a stack or a traceback, or none.
        remedy: what to do about it.
        files: where more is to be read.
    """

    what: str
    evidence: tuple[str, ...] = ()
    remedy: str = ""
    files: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the problem as lines of text."""
        shown = [f"  {line}" for line in self.evidence]
        shown += [f"  remedy: {self.remedy}"] if self.remedy else []
        return [f"PROBLEM: {self.what}", *shown, *(f"  more: {_shown(file)}" for file in self.files)]


def _shown(path: str) -> str:
    """A path below the current folder is shown from there."""
    return os.path.relpath(path) if path.startswith(os.path.join(os.getcwd(), "")) else path


def problems_of(name: str, row: Health | None, report: Report, step_timeout: float, timeout: float) -> list[Problem]:
    """Return the problems that the trial worlds have shown.

    Args:
        name: of the agent's type.
        row: its health; ``None``: it was in no world.
        report: of the worlds.
        step_timeout: seconds of wall time that a step may take.
        timeout: seconds that a world may take.
    """
    if row is None:
        return [Problem("it did not play in any world", remedy="look at what is said above")]
    lost = [task for task in report.missing if task.status == "failed"]
    found = [_lost(name, tasks, report, timeout) for tasks in _by_kind(name, lost)]
    if row.exceptions:
        what = f"raises {row.exceptions} exceptions in worlds that went on without its answers"
        remedy = "run it with --verbose, or look into the folder that --output names: negmas writes them into the logs"
        found.append(Problem(what, remedy=remedy))
    if row.slow_steps:
        found.append(_slow(row, step_timeout))
    printed = max((task for task in report.tasks), key=lambda task: task.printed or 0, default=None)
    if printed is not None and (printed.printed or 0) > MUCH:
        what = f"prints at least {(printed.printed or 0) / _MIB:.0f} MiB in one world"
        files = (printed.log,) if printed.log else ()
        found.append(
            Problem(what, remedy="remove the prints, or write them to a log only while you debug", files=files)
        )
    return found


def _slow(row: Health, step_timeout: float) -> Problem:
    what = (
        f"is slow: {row.slow_steps} of {row.steps} steps took longer than {step_timeout:g} s (--step-timeout), the "
        f"longest {row.wall_worst:.1f} s"
    )
    waits = row.wall_worst > 3 * max(row.cpu_worst, 0.001)
    remedy = "its steps take CPU time: compute less, or once and not in each step"
    if waits:
        remedy = "it waits more than it computes (a sleep, a file, a network, a thread): take that out of the step"
    return Problem(what, remedy=remedy)


def _by_kind(name: str, lost: Sequence[TaskReport]) -> list[list[TaskReport]]:
    kinds: dict[tuple[str, ...], list[TaskReport]] = defaultdict(list)
    for task in lost:
        who = task.culprit
        mine = who is not None and who.competitor == name
        kinds[(who.fault, who.method, who.place) if mine and who is not None else ("",)].append(task)
    return list(kinds.values())


def _lost(name: str, tasks: Sequence[TaskReport], report: Report, timeout: float) -> Problem:
    task, who = tasks[0], tasks[0].culprit
    worlds = f"in {len(tasks)} of {report.planned} worlds"
    reason = plain(task.reason.partition("\n")[0])
    attempt = task.failed_attempts[-1] if task.failed_attempts else None
    files = tuple(file for file in (attempt.evidence, attempt.log) if file) if attempt is not None else ()
    if who is None or who.competitor != name:
        other = f", and {who.competitor} was on stage" if who is not None else ""
        return Problem(f"had a world fail {worlds}, though it was not seen on stage{other}: {reason}", files=files)
    where = f" in {plain(who.method)}" + (f" ({who.place})" if who.place else "")
    when = f" at step {who.step}" if who.step is not None and who.step >= 0 else ""
    what = f"{_VERBS.get(who.fault, 'fails')}{where}{when}, {worlds}: {reason}"
    return Problem(what, _evidence(task), _REMEDIES.get(who.fault, _REMEDIES[""]).format(timeout=timeout), files)


def _evidence(task: TaskReport) -> tuple[str, ...]:
    """The traceback from the agent's own innermost line on, or the stack up to it."""
    if task.culprit is not None and task.culprit.known_by == "growth":
        return ()  # the stack shows who was running, not who has taken the memory
    file = task.culprit.place.rpartition(":")[0] if task.culprit is not None else ""
    lines = plain(task.traceback or task.stacks).strip().splitlines()
    own = [i for i, line in enumerate(lines) if file and f'{file}"' in line]
    if task.traceback:
        return tuple(lines[max(own[-1] if own else 0, len(lines) - _STACK_LINES) :])
    return tuple(lines[: min(own[0] + 1 if own else _STACK_LINES, _STACK_LINES + 1)])


def figures(row: Health, report: Report) -> list[tuple[str, str]]:
    """Return what was measured, as titles and values."""
    shown = [("worlds", f"{row.scored} of {report.planned} scored")]
    if row.steps:
        shown += [
            ("wall time a step", _times(row.wall_median, row.wall_p95, row.wall_worst)),
            ("CPU time a step", _times(row.cpu_median, row.cpu_p95, row.cpu_worst)),
        ]
    if row.peak_memory:
        own = f", {row.grown / _MIB:.0f} MiB of it its own" if row.grown >= _MIB else ""
        shown.append(("memory", f"its worker held {row.peak_memory / _MIB:.0f} MiB{own}"))
    if report.verified:
        again = len(report.verified)
        shown.append(
            ("seed", f"{again - len(report.unsteady)} of {again} worlds that were run twice had the same scores")
        )
    return shown


def _times(median: float, p95: float, worst: float) -> str:
    return f"{1000 * median:.1f} ms median, {1000 * p95:.1f} ms 95 %, {1000 * worst:.1f} ms worst"


def as_json(agent: str, problems: Sequence[Problem], remarks: Sequence[str], row: Health | None) -> dict[str, Any]:
    """Return the verdict as plain values for JSON."""
    health = asdict(row) if row is not None else None
    verdict = "fail" if problems else "no problem found"
    told = [asdict(problem) for problem in problems]
    return {
        "version": 1,
        "agent": agent,
        "verdict": verdict,
        "problems": told,
        "remarks": list(remarks),
        "health": health,
    }

"""Which failures of a tournament are one and the same: by competitor and cause, each told once, with a count."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resilient_exec.adapters.text import plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resilient_exec.adapters.negmas.report.task_report import TaskReport

__all__ = ["Failure", "failures"]

_LONGEST = 160  # characters of an exception's message
_SAMPLED = {"timed_out", "out_of_memory"}
"""Faults whose place is where the agent was when it was killed, another one each time: the most frequent is told."""


@dataclass(frozen=True)
class Failure:
    """Worlds (or negotiations) that were lost in the same way.

    Attributes:
        status: ``failed``, ``interrupted`` or ``not run``.
        competitor: whose code was running; ``""``: nobody knows, or nobody's.
        cause: what happened.
        method: of the competitor's, in which it happened; ``""`` where that is not known.
        place: file and line there, such as ``my_agents.py:41``; ``""`` where that is not known.  Of a hang, and where
            memory ran out: the most frequent method and place.
        count: how many.
        first: one of them.
    """

    status: str
    competitor: str
    cause: str
    method: str
    place: str
    count: int
    first: TaskReport

    def words(self, competitor: str, kind: str = "worlds") -> str:
        """Return the failure in one line.

        Args:
            competitor: its name as it is to be shown.
            kind: ``worlds`` or ``negotiations``.
        """
        number = f"{self.count} {kind if self.count != 1 else kind[:-1]}"
        if self.status != "failed":
            return f"{number} {self.status}: {self.cause}"
        where = f" in {self.method}" if self.method else ""
        where += f" ({self.place})" if self.place else ""
        return f"{competitor or 'nobody known'}: {number}, {self.cause}{where}"


def failures(tasks: Iterable[TaskReport]) -> list[Failure]:
    """Of the tasks without a score: those of competitors first, the most frequent first."""
    counts: Counter[tuple[str, ...]] = Counter()
    first: dict[tuple[str, ...], tuple[TaskReport, str]] = {}
    places: dict[tuple[str, ...], Counter[tuple[str, str]]] = {}
    for task in tasks:
        if task.is_scored or task.status == "left to negmas":
            continue
        key, cause = _kind(task)
        counts[key] += 1
        who = task.culprit
        where = (plain(who.method), who.place) if who is not None and task.status == "failed" else ("", "")
        places.setdefault(key, Counter())[where] += 1
        first.setdefault(key, (task, cause))
    ranks = {"failed": 0, "interrupted": 1, "not run": 2}
    ordered = sorted(counts, key=lambda key: (ranks.get(key[0], 0), not key[1], -counts[key]))
    return [
        Failure(key[0], key[1], first[key][1], *places[key].most_common(1)[0][0], counts[key], first[key][0])
        for key in ordered
    ]


def _kind(task: TaskReport) -> tuple[tuple[str, ...], str]:
    """What makes it the same as others, and its cause in words."""
    if task.status != "failed":
        cause = plain(task.reason.splitlines()[0] if task.reason else "")
        return (task.status, "", cause, "", ""), cause
    who = task.culprit
    kind, cause = _cause(task)
    if who is None:
        return (task.status, "", kind, "", ""), cause
    if who.fault in _SAMPLED:
        return (task.status, who.competitor, kind, "", ""), cause
    return (task.status, who.competitor, kind, plain(who.method), who.place), cause


def _cause(task: TaskReport) -> tuple[str, str]:
    last = task.failed_attempts[-1] if task.failed_attempts else None
    ended = task.history[-1] if task.history else task.reason.partition("\n")[0]
    outcome = last.outcome if last is not None else task.culprit.fault if task.culprit is not None else ""
    if outcome == "out_of_memory":
        limit = ended.rpartition("more than ")[2]
        return outcome, f"out of memory (over {limit})" if "MiB" in limit else "out of memory"
    if outcome == "timed_out":
        return outcome, f"hung ({ended})"
    if outcome == "died":
        signal = (last.signal if last is not None else None) or task.signal
        code = last.exitcode if last is not None else task.exitcode
        words = f"killed by {signal}" if signal else f"exited with status {code}" if code is not None else "died"
        return words, words
    message = plain(task.reason.removeprefix("it ").partition("\n")[0])
    message = message if len(message) <= _LONGEST else f"{message[:_LONGEST]}..."
    if outcome == "raised":
        return message.partition(":")[0], message
    return ended.partition(":")[0], message

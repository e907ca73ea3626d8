"""In how many of its worlds each competitor was scored, and what that makes of a ranking.

A score is a mean over the worlds that were scored.  When worlds are lost for good, some competitors are judged by fewer
of them, and by others, than their rivals: the ranking compares what is not comparable, and whoever reads it has to be
told.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from resilient_exec.adapters.negmas.report.task_report import TaskReport

__all__ = ["Coverage", "coverage", "remark"]

_SHOWN = 8  # competitors named in a remark


@dataclass(frozen=True)
class Coverage:
    """In how many of its worlds one competitor was scored.

    Attributes:
        scored: worlds with it that have a score.
        planned: worlds that it was to play.
    """

    scored: int
    planned: int

    @property
    def share(self) -> Fraction:
        """The part of its worlds that was scored."""
        return Fraction(self.scored, self.planned)

    def __str__(self) -> str:
        return f"{self.scored} of {self.planned}"


def coverage(tasks: Iterable[TaskReport]) -> dict[str, Coverage]:
    """That of each competitor, by name; of what was left to negmas nobody here knows whether it was scored."""
    found: dict[str, Coverage] = {}
    for task in tasks:
        for name in task.competitors if task.status != "left to negmas" else ():
            so_far = found.get(name, Coverage(0, 0))
            found[name] = Coverage(so_far.scored + task.is_scored, so_far.planned + 1)
    return dict(sorted(found.items()))


def remark(covered: Mapping[str, Coverage], kind: str = "worlds") -> str:
    """What to say beside the ranking; ``""`` if everything was scored."""
    shares = {one.share for one in covered.values()}
    if shares <= {Fraction(1)}:
        return ""
    ordered = sorted(covered.items(), key=lambda item: item[1].share)
    told = ", ".join(f"{name} in {one}" for name, one in ordered[:_SHOWN])
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    if len(shares) == 1:
        return f"the ranking rests on fewer {kind} than planned; scored were {told}{more}"
    return f"the ranking is biased: competitors were scored in different shares of their {kind}: {told}{more}"

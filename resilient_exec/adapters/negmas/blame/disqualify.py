"""Disqualification: which competitors are excluded from further worlds, by the number of worlds they have spoiled."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Disqualification"]


class Disqualification:
    """The rule ``disqualify_after``.

    A competitor spoils a world set if it was on stage in the last attempt of a world set that has failed for good.

    Args:
        after: number of spoiled world sets after which a competitor is disqualified; ``None``: never.
    """

    def __init__(self, after: int | None) -> None:
        self.after = after
        self._spoiled: dict[str, set[str]] = {}  # names of world sets, by competitor

    def record_spoiled(self, competitor: str, world_set: str) -> None:
        """The competitor has spoiled that world set."""
        self.record_score(world_set)  # in an earlier run another competitor may have spoiled it
        self._spoiled.setdefault(competitor, set()).add(world_set)

    def record_score(self, world_set: str) -> None:
        """The world set has a score, so that nobody has spoiled it."""
        for spoiled in self._spoiled.values():
            spoiled.discard(world_set)

    @property
    def disqualified(self) -> tuple[str, ...]:
        """The competitors that are disqualified."""
        if self.after is None:
            return ()
        return tuple(name for name, spoiled in self._spoiled.items() if len(spoiled) >= self.after)

    def reason(self, competitors: Iterable[str]) -> str:
        """Why a world set with these competitors is not run; ``""``: it is run."""
        names = [name for name in dict.fromkeys(competitors) if name in self.disqualified]
        if not names:
            return ""
        count = "1 world" if self.after == 1 else f"{self.after} worlds"
        who = f"{names[0]} is" if len(names) == 1 else f"{', '.join(names)} are"
        return f"{who} disqualified for having spoiled {count} (disqualify_after)"

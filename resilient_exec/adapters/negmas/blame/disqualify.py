"""Who plays no more: decides, from the worlds that competitors have spoiled, which ones are out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Disqualification"]


class Disqualification:
    """The rule ``disqualify_after``: who has spoiled that many worlds plays no more; ``None``: everybody plays on."""

    def __init__(self, after: int | None) -> None:
        self.after = after
        self._spoiled: dict[str, set[str]] = {}  # worlds, by competitor

    def spoiled(self, competitor: str, world: str) -> None:
        """It has spoiled that world."""
        self.made_good(world)  # when it failed before, that may have been somebody else's doing
        self._spoiled.setdefault(competitor, set()).add(world)

    def made_good(self, world: str) -> None:
        """The world has a score after all."""
        for worlds in self._spoiled.values():
            worlds.discard(world)

    @property
    def out(self) -> tuple[str, ...]:
        """Those that play no more."""
        if self.after is None:
            return ()
        return tuple(name for name, worlds in self._spoiled.items() if len(worlds) >= self.after)

    def reason(self, competitors: Iterable[str]) -> str:
        """Why a world with these is not run; ``""``: it is run."""
        out = [name for name in dict.fromkeys(competitors) if name in self.out]
        if not out:
            return ""
        count = "1 world" if self.after == 1 else f"{self.after} worlds"
        who = f"{out[0]} is" if len(out) == 1 else f"{', '.join(out)} are"
        return f"{who} disqualified for having spoiled {count} (disqualify_after)"

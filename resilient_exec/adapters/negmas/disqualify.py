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
        self._spoiled: dict[str, int] = {}

    def spoiled(self, competitor: str) -> bool:
        """It has spoiled one more world; whether it is out by that."""
        self._spoiled[competitor] = self._spoiled.get(competitor, 0) + 1
        return self._spoiled[competitor] == self.after

    @property
    def out(self) -> tuple[str, ...]:
        """Those that play no more."""
        if self.after is None:
            return ()
        return tuple(name for name, count in self._spoiled.items() if count >= self.after)

    def reason(self, competitors: Iterable[str]) -> str:
        """Why a world with these is not run; ``""``: it is run."""
        out = [name for name in dict.fromkeys(competitors) if name in self.out]
        if not out:
            return ""
        count = "1 world" if self.after == 1 else f"{self.after} worlds"
        who = f"{out[0]} is" if len(out) == 1 else f"{', '.join(out)} are"
        return f"{who} disqualified for having spoiled {count} (disqualify_after)"

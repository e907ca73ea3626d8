"""What a lane's worker holds: attempts, and chunks of calls, that were sent to it and of which no outcome has come.

Each has a serial in its worker, and each call of a chunk or a bundle one of its own, one after the other.  A worker
runs them in order: so what has an outcome is taken off the front, and what is taken back off the end; from a bundle,
where each task has a mark of its own, also out of the middle.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from resilient_exec.wire.register import AHEAD

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from resilient_exec.model.task import Task
    from resilient_exec.wire.register import View

__all__ = ["Held", "Holdings"]


class Held:
    """An attempt that has been sent to a worker, or, with ``calls``, so many calls of a chunk or a bundle."""

    __slots__ = ("attempt", "calls", "first", "number", "serial", "task")

    def __init__(self, serial: int, number: Hashable, attempt: int, task: Task, calls: int = 0) -> None:
        self.serial = self.first = serial  # in this worker; of a chunk, that of its next call, and of its first one
        self.number, self.attempt, self.task, self.calls = number, attempt, task, calls

    @property
    def bundled(self) -> bool:
        """Whether each of these calls has a mark, by which it is taken back by itself."""
        return bool(self.calls) and self.task.group.bundled

    @property
    def last(self) -> int:
        """The serial of the last call."""
        return self.serial + max(self.calls, 1) - 1

    def at(self, serial: int) -> Held:
        """The call of that serial, by itself."""
        if not self.calls:
            return self
        return Held(serial, self.number + (serial - self.serial), self.attempt, self.task)  # type: ignore[operator]

    def serial_of(self, number: Hashable, attempt: int) -> int | None:
        """The serial of the call of that number, if it is among these."""
        if self.attempt != attempt:
            return None
        if not self.calls:
            return self.serial if self.number == number else None
        ahead: int = number - self.number  # type: ignore[operator]
        return self.serial + ahead if 0 <= ahead < self.calls else None


class Holdings:
    """All that a worker holds, in the order in which it was sent."""

    def __init__(self) -> None:
        self._held: deque[Held] = deque()
        self._serial = 0  # the last one that was given

    def __bool__(self) -> bool:
        return bool(self._held)

    def clear(self) -> None:
        """There is another worker, or none."""
        self._held.clear()

    def restart(self) -> None:
        """There is another worker, in which the serials begin anew."""
        self._held.clear()
        self._serial = 0

    def make(self, number: Hashable, attempt: int, task: Task) -> Held:
        """One more is to be sent."""
        group = task.group
        calls = task.calls or (1 if group is not None and not group.bundled else 0)
        held = Held(self._serial + 1, number, attempt, task, calls)
        # The next ones need a mark of their own, each, by which they are taken back; a chunk needs one in all.
        if calls > 1 and not group.bundled:
            self._serial += 1 + AHEAD * (-(-(calls - 1) // AHEAD))
        else:
            self._serial += calls or 1
        return held

    def append(self, held: Held) -> None:
        """It is sent."""
        self._held.append(held)

    @property
    def head(self) -> Held | None:
        """What runs, or is next."""
        return self._held[0] if self._held else None

    def of(self, serial: int) -> Held | None:
        """What has the call of that serial."""
        return next((held for held in self._held if held.serial <= serial <= held.last), None)

    def find(self, number: Hashable, attempt: int, calls: int, begun: int) -> Held | None:
        """That attempt, or call, by itself; with ``calls``, the one of these that is under way, or is next.

        ``begun``: the serial of the one that has begun last.
        """
        for held in self._held:
            if calls and held.calls and held.attempt == attempt:
                first: int = held.number  # type: ignore[assignment]
                if number < first + held.calls and first < number + calls:  # type: ignore[operator]
                    return held.at(min(max(begun, held.serial), held.last))
            serial = held.serial_of(number, attempt)
            if serial is not None:
                return held.at(serial)
        return None

    def advance(self, held: Held, count: int = 1) -> None:
        """So many calls have an outcome."""
        if held.calls > count:
            held.serial += count
            held.number += count  # type: ignore[operator]
            held.calls -= count
        else:
            self._held.remove(held)

    def cut(self, held: Held, serial: int, calls: int = 0) -> tuple[Hashable, int, int]:
        """So many calls from that one on (0: all) will not run there; number and attempt of the first, how many."""
        before = serial - held.serial
        if before <= 0 and held.calls <= max(calls, 1):
            self._held.remove(held)
            return held.number, held.attempt, held.calls or 1
        first: int = held.number + before  # type: ignore[operator]
        behind = held.calls - before - calls if calls else 0
        gone = held.calls - before - behind
        if behind:
            place = self._held.index(held)
            rest = Held(serial + gone, first + gone, held.attempt, held.task, behind)
            self._held.insert(place + 1, rest)
        held.calls = before
        if not before:
            self._held.remove(held)
        return first, held.attempt, gone

    def take_back(self, calls: Iterable[tuple[Hashable, int, int]], view: View) -> list[tuple[Hashable, int, int]]:
        """Have those of these that have not begun never run there, of a chunk all from that call on; which they are."""
        back = []
        for number, attempt, count in calls:
            for held in list(self._held):
                serial = held.serial_of(number, attempt)
                if serial is None:
                    continue
                if held.bundled:
                    last = min(held.last, serial + count - 1)
                    first = view.take_back_all(serial, last)
                    if first <= last:
                        back.append(self.cut(held, first, last - first + 1))
                elif view.take_back(held.first):
                    back.append(self.cut(held, held.serial))
                elif held.calls:
                    first = view.stop_before(serial, held.last)
                    if first <= held.last:
                        back.append(self.cut(held, first))
        return back

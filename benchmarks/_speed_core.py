"""What a decision of the core costs, without processes: tasks over 10,000 simulated lanes.

Run as a script: `python _speed_core.py COUNT` prints a JSON object.
"""

from __future__ import annotations

import gc
import heapq
import json
import random
import sys
import time
from typing import Any

from resilient_exec.core.machine import Core
from resilient_exec.core.messages import AttemptEnded, LaneReady, Send, StartWorker, Stimulus, Submitted
from resilient_exec.core.states import Limits
from resilient_exec.model.policies import RetryPolicy
from resilient_exec.model.task import Returned, Task

LANES = 10_000
BATCH = 1000


class Twins:
    """One core drives the simulation; another, which is timed, is told the same, many at a time: they decide alike."""

    def __init__(self) -> None:
        # As in a pool without observers: events are kept, and made when they are read.
        self.first, self.timed = (Core(Limits(LANES, tell=False)) for _ in range(2))
        self.told, self.busy = 0, 0.0
        self.running: list[tuple[float, int, int, int]] = []
        self._waiting: list[tuple[Stimulus, float]] = []
        self._chance = random.Random(1)

    def tell(self, stimulus: Stimulus, now: float) -> None:
        """Tell both, the one that is timed a little later; do what the first orders."""
        self._waiting.append((stimulus, now))
        if len(self._waiting) == BATCH:
            self.catch_up()
        for command in self.first.handle(stimulus, now):
            if isinstance(command, StartWorker):
                self.tell(LaneReady(command.lane, command.lane + 1), now)
            elif isinstance(command, Send):
                end = now + 1 + self._chance.random()
                heapq.heappush(self.running, (end, command.lane, int(str(command.number)), command.attempt))

    def catch_up(self) -> None:
        """Tell the one that is timed what it has not been told."""
        began = time.process_time()
        for stimulus, now in self._waiting:
            self.timed.handle(stimulus, now)
        self.busy += time.process_time() - began
        self.told += len(self._waiting)
        self._waiting.clear()


def decisions(count: int) -> dict[str, Any]:
    """Microseconds of CPU for each stimulus that a core is told, until so many tasks of 1 to 2 s have settled."""
    gc.disable()
    twins, policy, value = Twins(), RetryPolicy(), Returned("value")
    for number in range(count):
        twins.tell(Submitted(Task(number, policy)), 0.0)
    while twins.running:
        now, lane, ended, attempt = heapq.heappop(twins.running)
        twins.tell(AttemptEnded(lane, ended, attempt, value, began=now - 1, ended=now), now)
    twins.catch_up()
    if twins.first.is_busy or twins.timed.is_busy:
        raise RuntimeError(f"not all have settled: {twins.first.counts}, {twins.timed.counts}")
    return {"value": 1e6 * twins.busy / twins.told, "decisions": twins.told}


def measure(count: int) -> dict[str, Any]:
    """The same for a tenth of the tasks, too: how it grows with their number."""
    few, many = decisions(count // 10), decisions(count)
    return {**many, "times_that_of_a_tenth": many["value"] / few["value"]}


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))

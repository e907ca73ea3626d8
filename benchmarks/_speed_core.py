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
from resilient_exec.core.messages import AttemptEnded, Command, LaneReady, Send, StartWorker, Stimulus, Submitted
from resilient_exec.core.states import Limits
from resilient_exec.model.policies import RetryPolicy
from resilient_exec.model.task import Returned, Task

LANES = 10_000
BATCH = 1000


def decisions(count: int) -> dict[str, Any]:
    """Microseconds of CPU for each stimulus that a core is told, until so many tasks of 1 to 2 s have settled.

    One core drives the simulation; another, which is timed, is told the same, many at a time: they decide alike.
    """
    core, timed, chance = _core(), _core(), random.Random(1)
    policy, value = RetryPolicy(), Returned("value")
    running: list[tuple[float, int, int, int]] = []
    history: list[tuple[Stimulus, float]] = []
    told, busy = 0, 0.0

    def tell(stimulus: Stimulus, now: float) -> list[Command]:
        history.append((stimulus, now))
        if len(history) == BATCH:
            catch_up()
        return core.handle(stimulus, now)

    def catch_up() -> None:
        nonlocal told, busy
        began = time.process_time()
        for stimulus, now in history:
            timed.handle(stimulus, now)
        busy += time.process_time() - began
        told += len(history)
        history.clear()

    def perform(commands: list[Command], now: float) -> None:
        for command in commands:
            if isinstance(command, StartWorker):
                perform(tell(LaneReady(command.lane, command.lane + 1), now), now)
            elif isinstance(command, Send):
                end = now + 1 + chance.random()
                heapq.heappush(running, (end, command.lane, int(str(command.number)), command.attempt))

    gc.disable()
    for number in range(count):
        perform(tell(Submitted(Task(number, policy)), 0.0), 0.0)
    while running:
        now, lane, ended, attempt = heapq.heappop(running)
        perform(tell(AttemptEnded(lane, ended, attempt, value, began=now - 1, ended=now), now), now)
    catch_up()
    if core.is_busy or timed.is_busy:
        raise RuntimeError(f"not all have settled: {core.counts}, {timed.counts}")
    return {"value": 1e6 * busy / told, "decisions": told}


def _core() -> Core:
    return Core(Limits(LANES, tell=False))  # as in a pool without observers: events are kept, and made when read


def measure(count: int) -> dict[str, Any]:
    """The same for a tenth of the tasks, too: how it grows with their number."""
    few, many = decisions(count // 10), decisions(count)
    return {**many, "times_that_of_a_tenth": many["value"] / few["value"]}


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))

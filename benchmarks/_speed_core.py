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


def decisions(count: int) -> dict[str, Any]:
    """Microseconds of CPU for each stimulus that the core is told, until so many tasks of 1 to 2 s have settled.

    The simulation is counted with it.
    """
    core, chance = Core(Limits(LANES)), random.Random(1)
    policy, value = RetryPolicy(), Returned("value")
    running: list[tuple[float, int, int, int]] = []
    told = 0

    def tell(stimulus: Stimulus, now: float) -> list[Command]:
        nonlocal told
        told += 1
        return core.handle(stimulus, now)

    def perform(commands: list[Command], now: float) -> None:
        for command in commands:
            if isinstance(command, StartWorker):
                perform(tell(LaneReady(command.lane, command.lane + 1), now), now)
            elif isinstance(command, Send):
                end = now + 1 + chance.random()
                heapq.heappush(running, (end, command.lane, int(str(command.number)), command.attempt))

    gc.disable()
    began = time.process_time()
    for number in range(count):
        perform(tell(Submitted(Task(number, policy)), 0.0), 0.0)
    while running:
        now, lane, ended, attempt = heapq.heappop(running)
        perform(tell(AttemptEnded(lane, ended, attempt, value, began=now - 1, ended=now), now), now)
    if core.counts and any(core.counts.values()):
        raise RuntimeError(f"not all have settled: {core.counts}")
    return {"value": 1e6 * (time.process_time() - began) / told, "decisions": told}


def measure(count: int) -> dict[str, Any]:
    """The same for a tenth of the tasks, too: how it grows with their number."""
    few, many = decisions(count // 10), decisions(count)
    return {**many, "times_that_of_a_tenth": many["value"] / few["value"]}


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))

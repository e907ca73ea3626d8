"""The backlog gives tasks in the order of their ranks, whatever came in between."""

from __future__ import annotations

import random

from core_play import NEVER

from resilient_exec.core.backlog import Backlog
from resilient_exec.core.states import Record, State
from resilient_exec.model.task import Task


def _record(order: int, *, priority: float = 0, cost: float = 0, attempt: int = 0) -> Record:
    return Record(Task(order, NEVER, priority=priority, cost=cost), order, State.QUEUED, attempt=attempt)


def test_any_tasks_are_given_by_priority_then_cost_then_order() -> None:
    chance = random.Random(5)
    for _ in range(200):
        backlog, waiting, order = Backlog(), [], 0
        for _ in range(60):
            if waiting and chance.random() < 0.5:
                first = min(waiting, key=lambda r: (-r.task.priority, -r.task.cost, r.order))
                waiting.remove(first)
                assert backlog.pop() is first
                if chance.random() < 0.3:  # it comes back
                    first.attempt = 1
                    backlog.add(first)
                    waiting.append(first)
            else:
                order += 1
                waiting.append(_record(order, priority=chance.choice([0, 1]), cost=chance.choice([0, 0.5])))
                backlog.add(waiting[-1])
        assert sorted(r.order for r in backlog) == sorted(r.order for r in waiting)


def test_what_was_cancelled_is_passed_over_and_forgotten() -> None:
    backlog = Backlog()
    cancelled, kept, late = (_record(n) for n in (1, 2, 3))
    for record in (cancelled, kept, late):
        backlog.add(record)
    cancelled.state = late.state = State.SETTLED
    assert backlog.pop() is kept
    assert backlog.size == 1
    backlog.clear()
    assert (backlog.size, list(backlog)) == (0, [])


def test_lines_that_are_empty_do_not_pile_up() -> None:
    backlog = Backlog()
    for cost in range(1000):  # each dearer than all before
        backlog.add(_record(cost, cost=float(cost)))
        backlog.pop()
        backlog.clear()
    assert len(backlog._lines) <= 1

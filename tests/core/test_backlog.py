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


# -- costs that are learned --------------------------------------------------------------------------------------------


def _labelled(order: int, label: str, *, priority: float = 0, cost: float | None = None) -> Record:
    return Record(Task(order, NEVER, priority=priority, cost=cost, label=label), order, State.QUEUED)


def test_with_learned_costs_the_longest_label_goes_first_whatever_is_learned_in_between() -> None:
    chance = random.Random(7)
    for _ in range(200):
        known = dict.fromkeys("abcd", float("inf"))
        backlog, waiting, order = Backlog(known.__getitem__), [], 0
        for _ in range(60):
            what = chance.random()
            if waiting and what < 0.4:
                first = min(
                    waiting,
                    key=lambda r: (
                        -r.task.priority,
                        -(known[r.task.label] if r.task.cost is None else r.task.cost),
                        r.task.cost is None,
                        r.order,
                    ),
                )
                waiting.remove(first)
                assert backlog.pop() is first
                if chance.random() < 0.2:
                    first.attempt = 1
                    backlog.add(first)
                    waiting.append(first)
            elif what < 0.6:
                label = chance.choice("abcd")
                known[label] = chance.choice([0.5, 1.0, 2.0, 4.0])
                backlog.rank_again(label)
            else:
                order += 1
                cost = chance.choice([None, None, None, 0, 3.0])
                waiting.append(_labelled(order, chance.choice("abcd"), priority=chance.choice([0, 1]), cost=cost))
                backlog.add(waiting[-1])
        assert sorted(r.order for r in backlog) == sorted(r.order for r in waiting)


def test_lines_of_labels_that_are_done_are_forgotten() -> None:
    backlog = Backlog(lambda _: 1.0)
    for number in range(1000):
        backlog.add(_labelled(number, str(number)))
    while backlog.size:
        backlog.pop()
    backlog.clear()
    assert max(len(backlog._lines), len(backlog._learned), len(backlog._ranks)) <= 1

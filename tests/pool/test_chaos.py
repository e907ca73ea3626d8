"""Many tasks, a tenth of them sick by a seeded plan: every outcome is the planned one, and innocent work runs once."""

from __future__ import annotations

import collections
import random

import pool_tasks as tasks
import pytest
from pool_wait import lines

from resilient_exec import ResilientPool, RetryPolicy, TaskTimeout, WorkerDied

TIMEOUT = 1.0  # s: innocents need a thousandth of it
NOW = RetryPolicy(deaths=2, timeouts=1, errors=1, wait=lambda _: 0.0)
BUDGET = {"exit": 2, "kill": 2, "hang": 1, "raise": 1}
ERROR = {"exit": WorkerDied, "kill": WorkerDied, "hang": TaskTimeout, "raise": ValueError}


def plan_of(seed, count):
    """For each number: what it does, in all attempts before which one; a tenth does anything at all."""
    draw = random.Random(seed)
    plan = {}
    for number in range(count):
        if draw.random() >= 0.1:
            plan[number] = ("nothing", 1)
            continue
        what = draw.choices(["exit", "kill", "raise", "hang"], [4, 3, 4, 1])[0]
        plan[number] = (what, draw.choice([2, BUDGET[what] + 1, 99]))
    return plan


def attempts_of(what, until):
    return 1 if what == "nothing" else min(until, BUDGET[what] + 1)


def check(plan, futures, path):
    for number, future in futures.items():
        what, until = plan[number]
        attempts = attempts_of(what, until)
        error = future.exception(0)
        if what == "nothing" or until <= attempts:
            assert error is None, (number, what, until)
            assert future.result() == number
        else:
            assert type(error) is ERROR[what], (number, what, until)
        assert future.attempts == attempts, (number, what, until)
    executions = collections.Counter(tuple(map(int, line.split())) for line in lines(path))
    wanted = {(n, attempt) for n, (what, until) in plan.items() for attempt in range(1, attempts_of(what, until) + 1)}
    assert set(executions) == wanted, "each planned attempt was made, and no other"
    assert set(executions.values()) == {1}, "and each once: no innocent attempt was repeated"


@pytest.mark.parametrize(("count", "seed"), [(150, 1), pytest.param(2000, 2, marks=pytest.mark.slow)])
def test_every_outcome_of_many_is_the_planned_one_and_nothing_is_left(tmp_path, count, seed):
    """That no process, thread or descriptor is left is looked at behind every test of this suite."""
    plan, path = plan_of(seed, count), str(tmp_path / "executions")
    assert {what for what, _ in plan.values()} == {"nothing", *BUDGET}
    with ResilientPool(2, timeout=TIMEOUT, retry=NOW) as pool:
        futures = {n: pool.submit(tasks.chaos, path, n, what, until) for n, (what, until) in plan.items()}
    check(plan, futures, path)


def test_the_same_through_settled_with_workers_that_are_worn_out_quickly(tmp_path):
    """A new worker every seven attempts, and a look-ahead: all at once would hide what the order does."""
    plan, path = plan_of(4, 60), str(tmp_path / "executions")
    keys = sorted(plan)
    with ResilientPool(2, timeout=TIMEOUT, retry=NOW, max_tasks_per_worker=7) as pool:
        whats, untils = zip(*(plan[number] for number in keys), strict=True)
        done = {one.index: one for one in pool.settled(tasks.chaos, [path] * len(keys), keys, whats, untils)}
    assert sorted(done) == keys
    for number, (what, until) in plan.items():
        attempts = attempts_of(what, until)
        assert done[number].attempts == attempts
        assert done[number].ok == (what == "nothing" or until <= attempts)
    executions = collections.Counter(lines(path))
    assert set(executions.values()) == {1}

"""Retries with real deaths, hangs and exceptions: who gets another attempt, where, and when."""

from __future__ import annotations

import random

import pool_tasks as tasks
import pytest
import tenacity
from pool_wait import until, wait_lines

from resilient_exec import RetryPolicy, TaskKilled, TaskTimeout, WorkerDied, task_context


def now(**budgets):
    """A policy that tries again without a pause."""
    return RetryPolicy(**budgets, wait=tenacity.wait_none())


@pytest.fixture
def limited(make_pool):
    """A pool with one lane whose attempts may take 0.4 s, which is not for an import in each new worker."""
    return make_pool(1, timeout=0.4, preload=("pool_tasks",))


@pytest.mark.parametrize(
    ("plan", "budgets", "attempts", "end"),
    [
        ([], {}, 1, None),
        (["die"], {}, 2, None),
        (["die", "die"], {}, 3, None),
        (["die", "die", "die"], {}, 3, WorkerDied),
        (["hang"], {}, 2, None),
        (["hang", "hang"], {}, 2, TaskTimeout),
        (["die", "die", "hang", "die"], {}, 4, WorkerDied),
        (["die", "hang", "die"], {}, 4, None),
        (["hang", "die", "hang"], {}, 3, TaskTimeout),
        (["raise"], {}, 1, ValueError),
        (["raise", "raise"], {"errors": 2}, 3, None),
        (["raise", "raise"], {"errors": 1}, 2, ValueError),
        (["die", "raise", "die"], {"errors": 1}, 4, None),
        (["die"], {"deaths": 0}, 1, WorkerDied),
        (["hang"], {"timeouts": 0}, 1, TaskTimeout),
        (["die", "hang"], {"total": 2}, 2, TaskTimeout),
        (["die", "die", "die"], {"deaths": 9, "total": 3}, 3, WorkerDied),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_each_cause_has_a_budget_of_its_own(limited, plan, budgets, attempts, end):
    future = limited.options(retry=now(**budgets)).submit(tasks.plan_by_attempt, plan)
    error = future.exception(60)
    assert type(error) is (end or type(None))
    assert error is not None or future.result() == attempts
    assert future.attempts == attempts
    kinds = [event.kind for event in future.story]
    assert (kinds.count("begun"), kinds.count("backing_off")) == (attempts, attempts - 1)
    names = {"die": "died", "hang": "timed_out", "raise": "raised"}
    assert [kind for kind in kinds if kind in names.values()] == [names[what] for what in plan[:attempts]]
    if end in (WorkerDied, TaskTimeout):
        assert error.attempt == attempts


@pytest.mark.parametrize(
    ("retry", "plan", "attempts"),
    [(1, ["die"], 1), (2, ["die", "die"], 2), (3, ["die", "hang", "die"], 3), (2, ["raise"], 1)],
    ids=str,
)
def test_a_number_is_the_attempts_in_all_over_deaths_and_timeouts(limited, retry, plan, attempts):
    future = limited.options(retry=retry).submit(tasks.plan_by_attempt, plan)
    assert future.exception(60) is not None
    assert future.attempts == attempts


def test_retry_if_chooses_among_the_users_exceptions(limited):
    chosen = RetryPolicy(errors=5, wait=tenacity.wait_none(), retry_if=tenacity.retry_if_exception_type(ValueError))
    assert limited.options(retry=chosen).submit(tasks.plan_by_attempt, ["raise", "raise"]).result(60) == 3
    other = RetryPolicy(errors=5, wait=tenacity.wait_none(), retry_if=tenacity.retry_if_exception_type(KeyError))
    refused = limited.options(retry=other).submit(tasks.plan_by_attempt, ["raise"])
    assert refused.exception(60).args == ("attempt 1",)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt("mine")])
def test_an_exit_or_interrupt_of_the_tasks_own_is_not_tried_again_even_with_a_budget_for_errors(limited, error):
    future = limited.options(retry=now(errors=5)).submit(tasks.raise_, error)
    assert type(future.exception(60)) is type(error)
    assert future.attempts == 1


def test_a_strategy_that_raises_costs_another_attempt_and_nothing_else(limited, caplog):
    broken = RetryPolicy(wait=lambda _: 1 / 0)
    future = limited.options(retry=broken).submit(tasks.kill_self)
    assert isinstance(future.exception(60), WorkerDied)
    assert future.attempts == 1
    assert "a retry strategy raised" in caplog.text
    assert limited.submit(tasks.same, 1).result(60) == 1


def test_tenacitys_random_strategies_leave_the_seeded_generator_alone(limited):
    random.seed(5)
    wanted = [random.random() for _ in range(3)]
    random.seed(5)
    shaken = RetryPolicy(wait=tenacity.wait_random(0, 0.01))
    assert limited.options(retry=shaken).submit(tasks.plan_by_attempt, ["die", "die"]).result(60) == 3
    assert [random.random() for _ in range(3)] == wanted


def test_a_task_can_learn_its_attempt_its_key_and_the_workers_that_it_had(make_pool):
    pool = make_pool(1, retry=now())
    future = pool.options(key="case").submit(tasks.die_until, 3)
    key, attempt, previous = future.result(60)
    assert (key, attempt, len(previous)) == ("case", 3, 2)
    assert list(previous) == [event.detail["pid"] for event in future.story if event.kind == "begun"][:2]
    assert not any(tasks.alive(pid) for pid in previous)
    assert pool.submit(tasks.context).result(60)[1:] == (1, ())


def test_outside_a_pool_a_task_is_in_its_first_attempt():
    here = task_context()
    assert (here.key, here.attempt, here.previous_pids) == (None, 1, ())


def test_a_key_that_only_the_parent_knows_is_seen_as_text_in_the_worker(make_pool):
    class Key:
        def __reduce__(self):
            raise ValueError("stays here")

        def __repr__(self):
            return "<my key>"

    future = make_pool(1).options(key=Key()).submit(tasks.context)
    assert future.result(60)[0] == "<my key>"


def test_while_a_task_backs_off_others_use_its_lane(make_pool):
    pool = make_pool(1, retry=RetryPolicy(wait=tenacity.wait_fixed(600)))
    backing = pool.submit(tasks.kill_self)
    until(lambda: pool.snapshot()["backing_off"] == 1)
    assert list(pool.map(tasks.double, range(5))) == [0, 2, 4, 6, 8]
    assert not backing.done()
    assert not backing.cancel()
    backing.kill()
    error = backing.exception(60)
    assert isinstance(error, TaskKilled)
    assert error.attempt == 1


def test_the_pause_is_waited_for_and_told(make_pool):
    pool = make_pool(1, retry=RetryPolicy(wait=tenacity.wait_fixed(0.3)))
    future = pool.submit(tasks.die_until, 2)
    assert future.result(60)[1] == 2
    (told,) = [event for event in future.story if event.kind == "backing_off"]
    assert told.detail["delay"] == 0.3
    (again,) = [event for event in future.story if event.kind == "sent" and event.attempt == 2]
    assert again.at - told.at >= 0.3


def test_the_pause_without_a_strategy_depends_on_the_key_alone(make_pool):
    def delays(pool):
        future = pool.options(key="case").submit(tasks.die_until, 3)
        future.result(60)
        return [event.detail["delay"] for event in future.story if event.kind == "backing_off"]

    first, second = delays(make_pool(1)), delays(make_pool(1))
    assert first == second
    assert 0.05 <= first[0] <= 0.1
    assert 0.1 <= first[1] <= 0.2


def test_kill_beats_the_retry_that_a_death_or_a_timeout_would_be_granted(make_pool, tmp_path):
    pool = make_pool(1, retry=now(deaths=50, timeouts=50))
    here, never = str(tmp_path / "here"), str(tmp_path / "never")
    future = pool.options(timeout=600).submit(tasks.meet, here, never)
    wait_lines(here, 1)
    future.kill()
    assert isinstance(future.exception(60), TaskKilled)
    assert future.attempts == 1
    for _ in range(5):  # at any moment of an endless row of deaths
        dying = pool.submit(tasks.kill_self)
        until(lambda dying=dying: dying.attempts >= 2)
        dying.kill()
        assert isinstance(dying.exception(60), TaskKilled)
    hanging = pool.options(timeout=0.05).submit(tasks.hang)
    until(lambda: hanging.attempts >= 2)
    hanging.kill()
    assert isinstance(hanging.exception(60), TaskKilled)


def test_a_retried_task_keeps_its_place_before_what_was_submitted_later(make_pool, tmp_path):
    pool, path = make_pool(1, retry=now()), str(tmp_path / "ran")
    go, here = str(tmp_path / "go"), str(tmp_path / "here")
    blocker = pool.submit(tasks.meet, here, go)
    wait_lines(here, 1)
    futures = [pool.submit(tasks.note_after_death, path, number) for number in range(3)]
    tasks.note(go, "now")
    for future in (blocker, *futures):
        future.result(60)
    assert [future.attempts for future in futures] == [2, 2, 2]


def test_what_shutdown_kills_or_cancels_is_not_tried_again(make_pool, tmp_path):
    pool = make_pool(1, retry=now(deaths=50))
    here = str(tmp_path / "here")
    future = pool.submit(tasks.meet, here, str(tmp_path / "never"))
    wait_lines(here, 1)
    pool.shutdown(kill=True)
    assert isinstance(future.exception(60), TaskKilled)
    assert future.attempts == 1

"""An order to end something that comes too late: whoever is next does not wait for anything because of it."""

from __future__ import annotations

import time

import pool_tasks as tasks
import pytest
from pool_wait import until

from resilient_exec.lane.lease import Lease


@pytest.fixture
def late(monkeypatch):
    """Kills come when their attempt has just ended."""
    stop = Lease.stop

    def stop_when_it_has_ended(lease):
        begun, ended = lease.view.begun_and_ended()
        if begun != ended:
            until(lambda: lease.view.begun_and_ended()[1] >= begun)
        stop(lease)

    monkeypatch.setattr(Lease, "stop", stop_when_it_has_ended)


@pytest.mark.usefixtures("late")
def test_the_next_task_runs_at_once_behind_one_that_ended_just_at_its_limit(lone):
    """It was sent to a worker that its lane had not been given back yet, and was missed after ten seconds."""
    for _ in range(5):
        first = lone.options(timeout=0.05, retry=1).submit(time.sleep, 0.1)
        second = lone.options(retry=1).submit(tasks.pid)
        assert first.exception(60) is None
        assert second.exception(60) is None
        assert not {"frozen", "lost"} & {event.kind for event in second.story}


@pytest.mark.usefixtures("late")
def test_a_kill_that_comes_while_another_one_comes_too_late_strikes_what_it_names(lone):
    lone.submit(tasks.same, 0).result(60)
    first = lone.options(timeout=0.05, retry=1).submit(time.sleep, 0.1)
    second = lone.submit(time.sleep, 0.5)
    until(lambda: any(event.kind == "doomed" for event in first.story) or first.done())
    second.kill()
    third = lone.submit(tasks.same, 3)
    assert second.exception(60) is not None
    assert (first.exception(60), third.result(60)) == (None, 3)
    assert [event.kind for event in third.story].count("begun") == 1


def test_a_worker_that_is_ready_just_when_its_start_is_given_up_is_used_at_once(make_pool, monkeypatch):
    stop = Lease.stop

    def stop_late(lease):
        time.sleep(1.5)  # by then it has said that it is ready
        stop(lease)

    told = []
    pool = make_pool(1, initializer=time.sleep, initargs=(0.6,), start_timeout=0.5, observers=[told.append])
    monkeypatch.setattr(Lease, "stop", stop_late)
    future = pool.submit(tasks.pid)
    pid = future.result(60)
    monkeypatch.setattr(Lease, "stop", stop)
    assert not {"frozen", "lost"} & {event.kind for event in future.story}
    assert [event.detail["pid"] for event in told if event.kind == "lane_ready"] == [pid]

"""What a future knows of its attempts: when it can be cancelled, and whether it runs."""

from __future__ import annotations

import pytest

from resilient_exec.core.messages import Send
from resilient_exec.model.policies import RetryPolicy
from resilient_exec.model.task import Task
from resilient_exec.supervisor.future import ResilientFuture


class Worker:
    """A worker's register, in which nothing begins before ``begins`` is called."""

    begun = 0

    def take_back_one(self, serial):
        return self.begun < serial

    def has_begun(self, serial):
        return self.begun >= serial


class Overseer:
    def __init__(self):
        self.told = []

    def cancelled(self, future):
        self.told.append(future)


@pytest.fixture
def worker():
    return Worker()


@pytest.fixture
def future():
    return ResilientFuture(7, "task", "()", Overseer(), 7)


def send(future, worker, attempt, serial=1):
    return future._give_to(lambda _: (worker, serial - 7), Send(0, 7, attempt, Task(7, RetryPolicy())))


def test_what_was_sent_and_has_not_begun_is_cancelled(future, worker):
    assert send(future, worker, attempt=1)
    assert not future.running()
    assert future.cancel()
    assert future._overseer.told == [future]
    assert not send(future, worker, attempt=1)


def test_what_has_begun_is_not(future, worker):
    assert send(future, worker, attempt=1)
    worker.begun = 1
    assert future.running()
    assert not future.cancel()


def test_what_has_begun_once_is_not_even_if_nobody_saw_it_before_its_worker_died(future, worker):
    assert send(future, worker, attempt=1)
    assert send(future, Worker(), attempt=2)
    assert future.running()
    assert not future.cancel()
    assert not future._overseer.told


def test_what_was_taken_back_waits_and_is_cancelled_whatever_its_worker_runs_since(future, worker):
    assert send(future, worker, attempt=1)
    future._note_taken_back()
    worker.begun = 5
    assert not future.running()
    assert future.cancel()

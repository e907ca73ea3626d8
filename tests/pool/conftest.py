"""Pools that end with the test that made them, and scripts."""

from __future__ import annotations

import threading

import pool_tasks
import pytest
from scripts import start_script  # noqa: F401  (a fixture)

from resilient_exec import ResilientPool


@pytest.fixture
def make_pool():
    """Makes pools; they are killed when the test is over, if it has not ended them."""
    pools = []

    def make(*args, **kwargs):
        pool = ResilientPool(*args, **kwargs)
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        pool.shutdown(kill=True, cancel_futures=True)
    pools.clear()  # pytest keeps this frame, and with it whatever a pool was given


@pytest.fixture
def pool(make_pool):
    """A pool with two lanes."""
    return make_pool(2)


@pytest.fixture
def lone(make_pool):
    """A pool with one lane."""
    return make_pool(1)


@pytest.fixture(scope="module")
def warm():
    """One pool with one worker, up and idle, for all tests of a module that leave both as they find them."""
    with ResilientPool(1) as pool:
        called = threading.Event()
        pool.submit(pool_tasks.pid).add_done_callback(lambda _: called.set())
        assert called.wait(60)  # its callback thread runs as well: a test must not seem to have left it
        yield pool

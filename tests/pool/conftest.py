"""Pools that end with the test that made them, and scripts."""

from __future__ import annotations

import threading

import pool_tasks
import pytest
from scripts import start_script  # noqa: F401  (a fixture)

from resilient_exec import ResilientPool


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

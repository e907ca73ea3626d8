"""CPython's own tests of executors, run on this pool: the mix-ins of the running interpreter's ``test`` package.

Adapted is only what belongs to the harness: how the executor is made, and from where scripts import it.
"""

from __future__ import annotations

import os
import unittest
from pathlib import Path
from types import MappingProxyType

import pytest

import resilient_exec
from resilient_exec import ResilientPool

suite = pytest.importorskip("test.test_concurrent_futures.util", reason="this Python comes without its tests")

from concurrent import futures  # noqa: E402  behind the check that there is anything to run

from test.support import script_helper  # noqa: E402
from test.test_concurrent_futures import executor, test_as_completed, test_init, test_shutdown, test_wait  # noqa: E402

pytestmark = pytest.mark.slow

HOME = str(Path(resilient_exec.__file__).parents[1])


class ResilientPoolMixin(suite.ExecutorMixin):
    executor_type = ResilientPool


class FailingInitializer(ResilientPoolMixin):
    """As ``FailingInitializerMixin``, which looks for a line in a log: here the words are in the error."""

    worker_count = 2
    executor_kwargs = MappingProxyType({"initializer": test_init.init_fail})

    def test_initializer(self):
        with pytest.raises(futures.BrokenExecutor, match="ValueError: error in initializer"):
            self.executor.submit(test_init.get_init_status).result()
        with pytest.raises(futures.BrokenExecutor):
            self.executor.submit(test_init.get_init_status)


class WarmPool(ResilientPoolMixin):
    """For the test that expects at least one of 50 tasks to be running when the next line cancels what waits.

    Other pools call a task running when it has been put into a queue; here it is when a worker has it, and a worker
    takes a moment to start.
    """

    def setUp(self):
        super().setUp()
        self.executor.submit(int).result()


@pytest.fixture(autouse=True)
def scripts_know_the_pool(monkeypatch):
    """The suite's scripts import the executor from ``concurrent.futures``, in an isolated interpreter."""

    def assert_python_ok(flag, code, **_):
        code = code.replace("from concurrent.futures import ResilientPool", "from resilient_exec import ResilientPool")
        status, out, err = script_helper.assert_python_ok(flag, code, PYTHONPATH=HOME)
        return status, out, err.replace(b"resilient_exec.PoolClosed: ", b"RuntimeError: ")  # which it is

    monkeypatch.setattr(test_shutdown, "assert_python_ok", assert_python_ok)
    monkeypatch.setattr("test.support.use_resources", ["walltime", "cpu"])


def named(name, *bases):
    return type(name, (*bases, suite.BaseTestCase), {"__module__": __name__})


TestExecutor = named("TestExecutor", executor.ExecutorTest, ResilientPoolMixin)
TestWait = named("TestWait", test_wait.WaitTests, ResilientPoolMixin)
TestAsCompleted = named("TestAsCompleted", test_as_completed.AsCompletedTests, ResilientPoolMixin)
TestShutdown = named("TestShutdown", test_shutdown.ExecutorShutdownTest, WarmPool)
TestInitializer = named("TestInitializer", test_init.InitializerMixin, ResilientPoolMixin)
TestFailingInitializer = named("TestFailingInitializer", FailingInitializer)


def test_the_suite_is_there():
    """Not a handful of classes without tests in them."""
    loader = unittest.TestLoader()
    classes = (TestExecutor, TestWait, TestAsCompleted, TestShutdown, TestInitializer, TestFailingInitializer)
    assert sum(len(loader.getTestCaseNames(cls)) for cls in classes) >= 30
    assert os.path.isdir(HOME)

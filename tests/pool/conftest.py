"""Pools that end with the test that made them, and a place for their scripts."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pool_tasks
import pytest
from pool_wait import until

import resilient_exec
from resilient_exec import ResilientPool

PACKAGE_HOME = str(Path(resilient_exec.__file__).parents[1])
TESTS_HOME = str(Path(__file__).parent)


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


class Script:
    """A program of the user's in a process group of its own; its output goes to files."""

    def __init__(self, folder: Path, text: str, *, stdout=None, python=()):
        self.folder = folder
        path = folder / "script.py"
        path.write_text(textwrap.dedent(text))
        environment = {k: v for k, v in os.environ.items() if k != "RESILIENT_EXEC_TEST_PARENT"}
        environment["PYTHONPATH"] = os.pathsep.join([PACKAGE_HOME, TESTS_HOME])
        self._err = open(folder / "stderr", "wb")  # noqa: SIM115  closed in end()
        self._out = open(folder / "stdout", "wb") if stdout is None else None  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, *python, str(path)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._out if stdout is None else stdout,
            stderr=self._err,
            start_new_session=True,
        )

    def wait(self, seconds: float = 60) -> int:
        """Its exit status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the script has not ended in {seconds} s; it said:\n{self.out}\n{self.err}") from None

    def to_group(self, number: int) -> None:
        """A signal to the whole group, as a terminal sends it."""
        os.killpg(self.process.pid, number)

    @property
    def out(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "stderr").read_text()

    def wait_file(self, name: str, seconds: float = 60) -> str:
        """Wait until the script or its tasks have written a whole line to that file; its text."""
        path = self.folder / name

        def text():
            return path.read_text() if path.exists() else ""

        until(lambda: text().endswith("\n"), seconds, f"{name} never came; stderr: {self.err}")
        return text()

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._err.close()
        if self._out is not None:
            self._out.close()


@pytest.fixture
def start_script(tmp_path):
    """Starts programs, each in a folder of its own; what is left of them is killed when the test is over."""
    scripts = []

    def start(text, **options):
        folder = tmp_path / f"script{len(scripts)}"
        folder.mkdir()
        script = Script(folder, text, **options)
        scripts.append(script)
        return script

    yield start
    for script in scripts:
        script.end()

"""Programs of a user's, run as processes of their own: for what a test cannot do to itself."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import resilient_exec

TESTS = Path(__file__).parent
PATHS = [Path(resilient_exec.__file__).parents[1], TESTS / "pool", TESTS / "faults"]  # where a script finds modules
NOT_FOR_SCRIPTS = {"RESILIENT_EXEC_TEST_PARENT", "PYTHONUNBUFFERED"}  # without buffers, some faults do not show


class Script:
    """A program of the user's in a process group of its own; its output goes to files.

    ``python`` are options of the interpreter's, ``under`` is a command that runs it.
    """

    def __init__(self, folder: Path, text: str, *, stdout=None, python=(), under=()):
        self.folder = folder
        path = folder / "script.py"
        path.write_text(textwrap.dedent(text))
        environment = {k: v for k, v in os.environ.items() if k not in NOT_FOR_SCRIPTS}
        environment["PYTHONPATH"] = os.pathsep.join(map(str, PATHS))
        self._err = open(folder / "stderr", "wb")  # noqa: SIM115  closed in end()
        self._out = open(folder / "stdout", "wb") if stdout is None else None  # noqa: SIM115
        self.process = subprocess.Popen(
            [*under, sys.executable, *python, str(path)],
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

        deadline = time.monotonic() + seconds
        while not (found := text()).endswith("\n"):
            assert time.monotonic() < deadline, f"{name} never came; stderr: {self.err}"
            time.sleep(0.005)
        return found

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

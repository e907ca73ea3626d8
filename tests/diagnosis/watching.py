"""A program under `resilient-exec watch`, for tests: started, asked what was said of it, and ended with all it has."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import resilient_exec

PACKAGE = Path(resilient_exec.__file__).parents[1]
PATIENCE = 60  # s: for a machine that does much else


class Watched:
    """One ``watch -- python script.py`` in a session of its own."""

    def __init__(self, folder, text, *options, stall=0.8, stdin=None, python=sys.executable, command=()):
        self.folder = folder
        (folder / "script.py").write_text(text)
        self.log = folder / "log.jsonl"
        environment = {name: value for name, value in os.environ.items() if name != "RESILIENT_WATCH"}
        environment["PYTHONPATH"] = str(PACKAGE)
        watch = [sys.executable, "-m", "resilient_exec", "watch", "--every", "0.5", "--stall", str(stall)]
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            self.process = subprocess.Popen(
                [*watch, "--log", str(self.log), *options, "--", *(command or (python, "script.py"))],
                cwd=folder,
                env=environment,
                stdin=stdin if stdin is not None else subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def events(self):
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    @property
    def err(self):
        return (self.folder / "err").read_text()

    def wait_for(self, wanted, what, seconds=PATIENCE):
        """The first event that is wanted."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = next(filter(wanted, self.events), None)
            if found is not None:
                return found
            assert self.process.poll() is None or self.events, f"it has ended: {self.err}"
            time.sleep(0.05)
        raise AssertionError(f"no {what} in {seconds} s; said: {self.err[-3000:]}")

    def end(self):
        """Kill all that runs in its folder: the watcher first, which would report the death of the others."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGSTOP)
        for _ in range(3):
            for name in filter(str.isdigit, os.listdir("/proc")):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{name}/cwd") == str(self.folder) and int(name) != self.process.pid:
                        os.kill(int(name), signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
        self.process.wait(PATIENCE)


@pytest.fixture
def watched(tmp_path):
    """Starts programs under watch."""
    started = []

    def start(text, *options, **more):
        folder = tmp_path / f"program{len(started)}"
        folder.mkdir()
        started.append(Watched(folder, text, *options, **more))
        return started[-1]

    yield start
    for one in started:
        one.end()

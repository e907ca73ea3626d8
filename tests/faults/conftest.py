"""What the fault tests share: pools that end with their test, scripts, and a look for processes that were left."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from pathlib import Path

import pytest
from scripts import start_script  # noqa: F401  (a fixture)

MARK = "RESILIENT_EXEC_FAULT_TEST"


def marked(value):
    """Living processes with that mark in their environment, whatever has become of their parents."""
    wanted, found = f"{MARK}={value}".encode(), {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if wanted in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                found[int(name)] = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return {pid: line for pid, line in found.items() if "resource_tracker" not in line}


def wait_clean(value, seconds=20):
    """Wait until nothing with that mark is alive."""
    deadline = time.monotonic() + seconds
    while (left := marked(value)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left, f"left behind: {left}"


@pytest.fixture(autouse=True)
def mark(monkeypatch):
    """Marks what the test starts; behind it nothing of that is alive, in whatever tree or session it may be."""
    value = uuid.uuid4().hex
    monkeypatch.setenv(MARK, value)
    yield value
    wait_clean(value)


@pytest.fixture
def ended(mark):
    """Waits for a script's end, and for the end of all that it had started; its exit status."""

    def wait(script, seconds=60):
        status = script.wait(seconds)
        wait_clean(mark)
        return status

    return wait

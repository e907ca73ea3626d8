"""A memory cgroup for tests that want the kernel's OOM killer to strike."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import psutil
import pytest

from resilient_exec.process import memory

MIB = 1 << 20


def _put(path, text):
    """Write one of the kernel's files (never make it); whether that was possible."""
    try:
        with open(path, "r+") as file:
            file.write(text)
    except OSError:
        return False
    return True


@pytest.fixture
def small_cgroup():
    """A memory cgroup of 64 MiB below our own, where the system lets us make one."""
    own = next((cgroup for cgroup in memory._around_us() if cgroup.kills() is not None), None)
    if own is None:
        pytest.skip("no memory cgroup that counts its kills")
    path = Path(own.path) / f"test_memory_{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made: {error}")
    limit, swap, most = path / "memory.limit_in_bytes", path / "memory.memsw.limit_in_bytes", 64 * MIB
    if own.unified:
        limit, swap, most = path / "memory.max", path / "memory.swap.max", 0
    try:
        if not _put(limit, str(64 * MIB)):
            pytest.skip(f"{limit} cannot be written")
        if not _put(swap, str(most)) and psutil.swap_memory().total:
            pytest.skip(f"{swap} cannot be written: it would be swapped out instead of killed")
        yield path
    finally:
        _remove(path)


def _remove(path):
    deadline = time.monotonic() + 60
    while path.exists():
        with contextlib.suppress(OSError):  # a process that has just ended may still be in it
            path.rmdir()
        assert time.monotonic() < deadline, "the cgroup cannot be removed"
        time.sleep(0.005)

"""Programs that hang for real, each in its own way: the name that comes out, and what stands beside it."""

from __future__ import annotations

import concurrent.futures.process
import os
import sys

import pytest
from hangs import NAMES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
MENDED = hasattr(concurrent.futures.process._ExecutorManagerThread, "_replace_dead_worker")
MENDED_AT_THE_END = hasattr(concurrent.futures.process, "_spawn_worker")
ONE_OF_A_KIND = {name for name in NAMES if "(spawn)" not in name or name.replace("spawn", "fork") not in NAMES}


@pytest.mark.parametrize(
    "name", [name if name in ONE_OF_A_KIND else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_a_program_that_hangs_is_told_why(name, watched):
    text, cause = NAMES[name]
    if (cause == "gh-115634" and MENDED) or (cause in ("gh-119592", "gh-152967") and MENDED_AT_THE_END):
        pytest.skip("this Python replaces its workers")
    if "import joblib" in text:
        pytest.importorskip("joblib")
    reading, writing = os.pipe()  # stdin: nobody types anything
    try:
        program = watched(text, stdin=reading)
        stall = program.wait_for(lambda event: event["event"] == "stall", "stall")
    finally:
        os.close(reading)
        os.close(writing)
    assert stall.get("cause") == cause, program.err[-4000:]
    if cause is not None:
        assert stall["evidence"]
        assert stall["remedy"]
    assert "Stacks, innermost frame first" in program.err


@pytest.mark.skipif(MENDED, reason="this Python replaces its workers")
def test_what_was_done_before_the_hang_is_counted(watched):
    program = watched(NAMES["gh-115634"][0])
    stall = program.wait_for(lambda event: event["event"] == "stall", "stall")
    (pool,) = stall["pools"]
    # Three for each worker; a busy machine may have started only one of them before the first was done with a task.
    assert pool["done"] in (3, 6)
    assert (pool["kind"], pool["running"]) == ("ProcessPoolExecutor", 3)
    assert pool["done"] + pool["running"] + pool["pending"] == 20
    assert (pool["max_workers"], pool["max_tasks"]) == (2, 3)
    assert pool["oldest"][0] == "__main__.work"
    assert "max_tasks_per_child=3" in " ".join(stall["evidence"])

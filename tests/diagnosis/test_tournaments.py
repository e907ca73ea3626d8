"""The hang that started it: stock negmas 0.11.3, watched (slow: an environment of its own is made, and kept)."""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from watching import PACKAGE

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def stock():
    """The environment's Python, and the script that makes the calls."""
    before = list(sys.path)
    sys.path.insert(0, str(BENCHMARKS))
    try:
        stage, script = load("_environments"), load("reproduce_deadlock")
        try:
            _, python = stage.find_environment(None, script.REQUIREMENTS, script.CHECKOUT, None, fresh=False)
        except stage.SetupError as problem:
            pytest.skip(f"no environment with {script.REQUIREMENTS}: {problem}")
        return str(python), str(BENCHMARKS / "reproduce_deadlock.py")
    finally:
        sys.path[:] = before


@pytest.mark.slow
@pytest.mark.parametrize(("call", "pending"), [("cartesian", 124), ("worlds", 16)])
def test_the_report_says_how_far_the_tournament_is_and_why_it_stopped(call, pending, stock, watched, tmp_path):
    python, script = stock
    folder = tmp_path / "run"
    folder.mkdir()
    program = watched("", stall=15, command=(python, script, "--child", call, "stock", str(folder)))
    stall = program.wait_for(lambda event: event["event"] == "stall", "stall", seconds=500)
    assert stall["cause"] == "gh-115634", program.err[-4000:]
    (pool,) = [pool for pool in stall["pools"] if pool["max_tasks"] == 10]
    assert pool["done"] == 20
    assert pool["running"] + pool["pending"] == pending
    assert any("none of its workers is alive" in text for text in stall["evidence"])
    assert any("a negmas tournament" in text for text in stall["evidence"])
    assert any("resilient-exec run" in text for text in stall["remedy"])
    if call == "worlds":
        assert any("resilient-exec scml std --resume --output " in text for text in stall["remedy"])
        assert resumed(python, stall) == 36


def resumed(python, stall):
    """How many worlds are scored once the command of the report has been carried out."""
    (told,) = [text for text in stall["remedy"] if " --resume --output " in text]
    words = shlex.split(told.partition("resilient-exec ")[2])
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    done = subprocess.run(
        [python, "-m", "resilient_exec", *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return len(list(Path(words[-1]).glob("*/*/results.json")))

"""What a task leaves in its worker is compared with how that was: what fails the next ones is found, and mended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from state_tasks import HARMLESS, POISON

import resilient_exec

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="what is looked at are Linux's limits, masks and signals"
)

# In a process of its own, as pytest's would not survive it.
ALONE = """
import os, sys
import state_tasks
from resilient_exec.worker.state import WorkerState

state = WorkerState.take()
assert state.compare(state_tasks.work) == ""
function = getattr(state_tasks, sys.argv[1])
function()
words = state.compare(function)
os.write(1, words.encode())
os._exit(0)
"""


def _left_by(name: str) -> str:
    paths = [str(Path(resilient_exec.__file__).parents[1]), str(Path(__file__).parent)]
    program = f"import sys; sys.path[:0] = {paths}\n{ALONE}"
    ended = subprocess.run([sys.executable, "-c", program, name], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("function", POISON)
def test_what_fails_others_is_found(function):
    words = _left_by(function.__name__)
    assert words
    assert "cannot be read" not in words


@pytest.mark.parametrize("function", HARMLESS)
def test_what_only_differs_is_left_alone(function):
    assert _left_by(function.__name__) == ""

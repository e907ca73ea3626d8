"""``resilient-exec scml``: from arguments to ranking, with real tournaments of seconds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

pytest.importorskip("scml")

COMMAND = [sys.executable, "-W", "ignore", "-m", "resilient_exec", "scml"]
SMALL = ["--configs", "1", "--steps", "3", "--workers", "2"]

AGENTS = """
import os
from scml.oneshot.agents import RandomOneShotAgent, GreedyOneShotAgent

class Healthy(RandomOneShotAgent):
    pass

class Exits(RandomOneShotAgent):
    def step(self):
        os._exit(7)

not_a_class = 1
"""


def run(*arguments, cwd):
    return subprocess.run([*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my_agents.py").write_text(AGENTS)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["std", "NoSuchAgent"], ["NoSuchAgent", "GreedyStdAgent"]),
        (["oneshot", "no_such_module:A"], ["no_such_module"]),
        (["oneshot", "my_agents:Nobody"], ["Nobody", "my_agents"]),
        (["oneshot", "my_agents:not_a_class"], ["not_a_class"]),
        (["oneshot", "GreedyOneShotAgent"], ["two competitors"]),
        (["oneshot", "--per-world", "9"], ["--per-world", "9"]),
        (["oneshot", "--resume"], ["--output"]),
        (["oneshot", "--resume", "--output", "nothing"], ["nothing"]),
        (["oneshot", "--steps", "0"], ["--steps", "0"]),
        (["collusion"], ["collusion"]),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_world(arguments, words, folder):
    done = run(*arguments, cwd=folder)
    assert done.returncode == 2
    for word in words:
        assert word in done.stderr
    assert not list(folder.glob("scml-*"))


def test_a_tournament_ends_with_a_ranking_and_is_not_run_twice(folder):
    done = run("oneshot", "my_agents:Healthy", "GreedyOneShotAgent", *SMALL, "--output", "out", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "Ranking" in done.stdout
    assert "Healthy" in done.stdout
    report = json.loads((folder / "out" / "tournament-stage-0001" / "resilient-report.json").read_text())
    assert report["counts"]["scored"] == report["planned"] > 0
    again = run("oneshot", *SMALL, "--output", "out", cwd=folder)
    assert again.returncode == 2
    assert "--resume" in again.stderr


def test_a_sick_competitor_is_named_and_the_tournament_is_resumed_without_running_the_finished_worlds(folder):
    arguments = ["oneshot", "my_agents:Exits", "my_agents:Healthy", "GreedyOneShotAgent", *SMALL, "--output", "out"]
    done = run(*arguments, "--retries", "0", cwd=folder)
    assert done.returncode == 3, done.stderr
    assert "Exits" in done.stdout
    assert "exited with status 7" in done.stdout
    stage = folder / "out" / "tournament-stage-0001"
    finished = sorted(stage.glob("*/results.json"))
    assert finished
    victim = finished[0].parent
    starts = {path: path.stat().st_mtime_ns for path in stage.glob("*/attempts/att_*")}
    shutil.rmtree(victim)
    (folder / "my_agents.py").write_text(AGENTS.replace("os._exit(7)", "pass"))
    resumed = run("oneshot", "--resume", "--output", "out", "--workers", "2", cwd=folder)
    assert resumed.returncode == 0, resumed.stderr
    report = json.loads((stage / "resilient-report.json").read_text())
    assert report["counts"]["scored"] == report["planned"]
    assert report["counts"]["scored_before"] == len(finished) - 1
    for path, when in starts.items():
        if path.exists() and path.parent.parent in {p.parent for p in finished}:
            assert path.stat().st_mtime_ns == when

"""The real culprit: a competitor of a past league that kills its process by SIGSEGV."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.slow,  # each of its worlds imports TensorFlow and PyTorch first
    pytest.mark.skipif(
        sys.version_info < (3, 12)
        or any(importlib.util.find_spec(name) is None for name in ("scml_agents", "tensorflow")),
        reason="needs scml-agents with TensorFlow, and Python 3.12: without these it did not crash",
    ),
]

# In a process of its own: importing all competitors of a league starts threads.
SCRIPT = """
import sys
from scml.oneshot.agents import GreedyOneShotAgent, RandomOneShotAgent
from scml.utils import anac2024_oneshot
from scml_agents import get_agents
import resilient_exec.adapters.negmas as adapter

if __name__ == "__main__":
    found = [kind for kind in get_agents(2025, track="oneshot", as_class=True) if kind.__name__ == "PPOAgent"]
    if not found:
        sys.exit(5)
    small = dict(n_configs=1, n_runs_per_world=1, n_competitors_per_world=2, n_steps=5)
    with adapter.options(max_workers=2, retry=1, timeout=300):
        anac2024_oneshot([*found, RandomOneShotAgent, GreedyOneShotAgent],
                         tournament_path=sys.argv[1], parallelism="resilient", **small)
"""


def test_the_tournament_with_the_real_culprit_ends_and_it_is_named(tmp_path):
    script = tmp_path / "league.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, tmp_path / "out"], capture_output=True, text=True, check=False
    )
    if done.returncode == 5:
        pytest.skip("this scml-agents has no PPOAgent")
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "out").glob("*/resilient/report.json")
    report = json.loads(path.read_text())

    (name,) = {name for task in report["tasks"] for name in task["competitors"] if name.endswith(".PPOAgent")}
    with_it = [task for task in report["tasks"] if name in task["competitors"]]
    assert {task["status"] for task in report["tasks"] if task not in with_it} == {"scored"}
    lost = [task for task in with_it if task["status"] == "failed"]
    assert lost
    for task in lost:
        assert task["signal"] == "SIGSEGV"
        assert [who["competitor"] for who in task["on_stage"]] == [name]
    (health,) = [row for row in report["health"] if row["competitor"] == name]
    assert (health["crashes"], health["spoiled"]) == (len(lost), len(lost))

"""Whole programs: scripts with and without a guard, programs that are no file, and one that is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SCRIPT = """
import json, sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
from negmas.tournaments import evaluate_tournament, run_tournament
from scml.oneshot.agents import GreedyOneShotAgent, RandomOneShotAgent
from scml.utils import anac2024_oneshot, anac2024_oneshot_world_generator, balance_calculator_oneshot
import resilient_exec.adapters.negmas as adapter

PRICES = {"factor": 1}  # a global of the script that an agent needs

class Mine(RandomOneShotAgent):
    def before_step(self):
        super().before_step()
        assert PRICES["factor"] == 1

class Yours(GreedyOneShotAgent):
    pass

def generator(**kwargs):
    return anac2024_oneshot_world_generator(**kwargs)

STEPS = Path(TMP) / "steps"
def at_each_step(world):
    with STEPS.open("a") as file:
        print(world.current_step, file=file)

configs = anac2024_oneshot(
    (Mine, Yours), n_configs=1, n_competitors_per_world=2, n_steps=3, min_factories_per_level=1,
    tournament_path=TMP, configs_only=True,
)
folder = Path(configs).parent
run_tournament(
    folder, world_generator=generator, score_calculator=balance_calculator_oneshot,
    parallelism="resilient:0.5", world_progress_callback=at_each_step,
)
scores = evaluate_tournament(folder).total_scores
print(json.dumps({
    "main has a file": hasattr(sys.modules["__main__"], "__file__"),
    "types": sorted(name.rpartition(":")[2] for name in scores["agent_type"]),
    "competitors": sorted(adapter.last_report().tasks[0].competitors),
    "scored": adapter.last_report().scored,
    "steps": len(STEPS.read_text().splitlines()) >= 6,
}))
"""

# The same behind a guard; stock negmas imports such a script in its workers, so that its caches and locks are there.
ABOVE, AT, BELOW = SCRIPT.partition("configs = ")
CACHED = """
import functools, threading
LOCK = threading.Lock()
@functools.lru_cache
def factor(of):
    with LOCK:
        return PRICES[of]
"""
GUARD = "if __name__ == '__main__':\n"
GUARDED = CACHED + ABOVE.replace('PRICES["factor"]', 'factor("factor")') + GUARD + textwrap.indent(AT + BELOW, "    ")

INTERRUPTED = """
import warnings
warnings.simplefilter("ignore")
import negmas_tournaments as t
from negmas_agents import Healthy, Saboteur, hang
from pathlib import Path
import os

def mark(world):
    (Path(TMP) / f"pid.{os.getpid()}").touch()
    hang()

folder = t.make(Path(TMP) / "t", competitors=(Healthy, Saboteur))
(Path(TMP) / "folder").write_text(str(folder))
t.run(folder, lanes=2, world_progress_callback=mark)
print("this is never reached")
"""


def environment():
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


@pytest.mark.parametrize(
    ("text", "is_a_file"),
    [
        pytest.param(SCRIPT, True, id="an unguarded script"),
        pytest.param(GUARDED, True, id="a guarded script with a cached helper"),
        pytest.param(SCRIPT, False, id="no file at all", marks=pytest.mark.slow),
    ],
)
def test_competitors_of_main_play_under_their_names(text, is_a_file, tmp_path):
    """With a generator and a callback of ``__main__``, too; serial runs name the types in the same way."""
    code = f"TMP = {str(tmp_path)!r}\n{text}"
    (tmp_path / "script.py").write_text(code)
    program = [tmp_path / "script.py"] if is_a_file else ["-c", code]
    ended = subprocess.run(
        [sys.executable, *program], env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1]) == {
        "main has a file": is_a_file,
        "types": ["__main__.Mine", "__main__.Yours"],
        "competitors": ["__main__.Mine", "__main__.Yours"],
        "scored": 2,
        "steps": True,
    }


@pytest.mark.slow
def test_ctrl_c_ends_everything_at_once(tmp_path):
    """It reaches the whole process group, as from a terminal; two workers are in worlds that hang."""
    (tmp_path / "script.py").write_text(f"TMP = {str(tmp_path)!r}\n{INTERRUPTED}")
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py"],
        env=environment(),
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("pid.*"))) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    workers = [int(path.suffix[1:]) for path in tmp_path.glob("pid.*")]
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert len(workers) == 2
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in err
    assert "never reached" not in out
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    report = json.loads((Path((tmp_path / "folder").read_text()) / "resilient" / "report.json").read_text())
    assert report["ended_by"] == "KeyboardInterrupt"
    assert [task["reason"] for task in report["tasks"]] == ["killed: the tournament was ended by KeyboardInterrupt"] * 2

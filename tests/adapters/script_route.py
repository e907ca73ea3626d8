"""One tiny tournament of a runner of ``scml.utils``; writes as JSON who was scored how in which world.

A process of its own, started with ``PYTHONHASHSEED``: a serial run leaves the logs of its worlds open, and what SCML's
agents do depends on the order of sets of strings.
"""

import inspect
import json
import random
import re
import sys
from pathlib import Path

import negmas_tournaments as t
import numpy as np
from scml import utils
from scml.oneshot.agents import GreedyOneShotAgent, RandomOneShotAgent
from scml.scml2020.agents import BuyCheapSellExpensiveAgent, DecentralizingAgent
from scml.std.agents import GreedyStdAgent, RandomStdAgent

import resilient_exec.adapters.negmas as adapter

CREATED = re.compile(r"\d{8}H\d{12}")  # the moment of creation, in the names of worlds


def competitors_for(runner):
    """Two of scml's own agents that may play there."""
    if runner == "anac2024_std":
        return GreedyStdAgent, RandomStdAgent
    oneshot = (GreedyOneShotAgent, RandomOneShotAgent)
    return oneshot if "oneshot" in runner else (DecentralizingAgent, BuyCheapSellExpensiveAgent)


def play(runner, folder, parallelism):
    """Scores by world; the same tournament each time."""
    random.seed(11)
    np.random.seed(11)  # noqa: NPY002  it is the one that negmas draws from
    function = getattr(utils, runner)
    settings = {"n_configs": 1, "n_runs_per_world": 1, "min_factories_per_level": 1, "n_competitors_per_world": 2}
    settings |= {"max_worlds_per_config": 2, "n_agents_per_competitor": 2 if "collusion" in runner else 1}
    settings = {k: v for k, v in settings.items() if k in inspect.signature(function).parameters}
    competitors = competitors_for(runner)
    function(competitors, tournament_path=folder, parallelism=parallelism, n_steps=5, n_processes=2, **settings)
    (stage,) = folder.iterdir()
    return {CREATED.sub("", world): scores for world, scores in t.scores(stage).items()}


runner, how = sys.argv[1:3]
folder, told = Path(sys.argv[3]), Path(sys.argv[4])
out = {"error": "", "scores": {}, "missing": 0}
try:
    if how == "stock":
        adapter.uninstall()
        out["scores"] = play(runner, folder, "serial")
    else:
        with adapter.options(seed=7, max_workers=2):
            out["scores"] = play(runner, folder, how)
except Exception as error:
    out["error"] = f"{type(error).__name__}: {error}"
if how == "resilient" and adapter.last_report() is not None:
    out["missing"] = len(adapter.last_report().missing)
told.write_text(json.dumps(out))

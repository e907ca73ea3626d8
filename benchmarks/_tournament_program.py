"""The program that `tournament.py` measures: one tournament, and what it took.

    python _tournament_program.py PARALLELISM CONFIGS TIMEOUT FOLDER

Workers import a program that has a guard, as they do with the standard library's spawn. So it holds what a user's
program would, and nothing of the benchmark around it.
"""

import contextlib
import importlib
import json
import random
import resource
import sys
import time
from pathlib import Path
from typing import Any

SEED = 1


def main(parallelism: str, configs: int, timeout: float, folder: Path) -> None:
    """Run one tournament, and write its scores and times to outcome.json."""
    agents = importlib.import_module("_tournament_agents")
    utils = importlib.import_module("scml.utils")
    arguments: dict[str, Any] = {
        "n_configs": configs,
        "n_runs_per_world": 1,
        "n_competitors_per_world": 2,
        "n_steps": 5,
    }
    random.seed(SEED)  # the worlds and their names are drawn from it
    importlib.import_module("numpy").random.seed(SEED)
    arguments |= {"tournament_path": folder / "tournament", "parallelism": parallelism}
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        if parallelism.startswith("resilient"):
            adapter = importlib.import_module("resilient_exec.adapters.negmas")
            stack.enter_context(adapter.options(timeout=timeout, retry=1))
        scores = utils.anac2024_std(list(agents.COMPETITORS), **arguments).scores
    seconds = time.monotonic() - began
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(one.ru_utime + one.ru_stime for one in spent)
    outcome: dict[str, Any] = {"scored": int(scores["run_id"].nunique()), "seconds": seconds, "cpu": cpu}
    outcome["scores"] = {str(name): sorted(world["score"]) for name, world in scores.groupby("world")}
    (folder / "outcome.json").write_text(json.dumps(outcome))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))

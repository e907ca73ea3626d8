"""Runs a tournament, as an organiser's program does; somebody will kill it.

Arguments: the folder, the number of workers, and ``begin`` (the generator is named) or ``resume`` (it is not).
"""

import sys
from pathlib import Path

from negmas.tournaments import run_tournament
from scml.utils import anac2024_oneshot_world_generator, balance_calculator_oneshot

import resilient_exec.adapters.negmas as adapter

folder, lanes, how = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
named = {"world_generator": anac2024_oneshot_world_generator, "score_calculator": balance_calculator_oneshot}
with adapter.options(max_workers=lanes, seed=7):
    run_tournament(folder, parallelism="resilient", **(named if how == "begin" else {}))

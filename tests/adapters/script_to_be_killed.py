"""Runs a tournament, as an organiser's program does; somebody will kill it.

Arguments: the folder, the number of workers, ``begin`` (the generator is named) or ``resume`` (it is not), and how many
attempts there are for a world (or what is usual).
"""

import sys
from pathlib import Path

from negmas.tournaments import run_tournament
from scml.utils import anac2024_oneshot_world_generator, balance_calculator_oneshot

import resilient_exec.adapters.negmas as adapter

folder, lanes, how = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
named = {"world_generator": anac2024_oneshot_world_generator, "score_calculator": balance_calculator_oneshot}
more = {"retry": int(sys.argv[4])} if len(sys.argv) > 4 else {}
with adapter.options(max_workers=lanes, seed=7, **more):
    run_tournament(folder, parallelism="resilient", **(named if how == "begin" else {}))

"""One seeded tournament, run in several ways; writes as JSON what came out of each.

A process of its own, started with ``PYTHONHASHSEED``: the order of sets of strings is part of what negmas' agents do.
"""

import json
import os
import sys
from pathlib import Path

import negmas_tournaments as t
from negmas_agents import PLAN, Healthy, Saboteur, Thrifty

tmp = Path(sys.argv[1])
out = {}


def note(way, report=None):
    """Keep what this way of running the tournament has left on the disk."""
    files = {world: t.files(place) for world, place in t.set_folders(folder).items()}
    retried = [] if report is None else [[task.worlds[0], task.attempts, task.history] for task in report.retried]
    out[way] = {"scores": t.scores(folder), "files": files, "starts": t.starts(folder), "retried": sorted(retried)}
    out[way]["markers"] = [str(path) for path in folder.glob("*/attempts/_running/*")]
    # Besides the worlds of the tournament and negmas' own, there is nothing: no scratch, no leftovers.
    out[way]["folders"] = sorted(path.name for path in folder.iterdir() if path.is_dir())
    t.wipe(folder)


n_competitors, n_configs, n_killed, *undisturbed = map(int, sys.argv[3:])
folder = t.make(tmp, (Saboteur, Healthy, Thrifty)[:n_competitors], n_configs=n_configs)
out["sabotaged"] = t.sabotaged(folder)[:n_killed]
t.run_seeded(folder, "serial")
note("serial")
for lanes in undisturbed:
    note(f"{lanes} workers", t.run_seeded(folder, lanes=lanes))
plan = tmp / "plan.json"
plan.write_text(json.dumps(dict.fromkeys(out["sabotaged"], "kill once")))
os.environ[PLAN] = str(plan)
note("killed once", t.run_seeded(folder, lanes=2))
Path(sys.argv[2]).write_text(json.dumps(out))

"""What the tests do with tournaments: make one, run it, look at its results, wipe them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from negmas.tournaments import evaluate_tournament, run_tournament  # noqa: F401  rebound when the adapter is installed
from negmas_agents import PLAN, Healthy, Saboteur, Thrifty
from scml.utils import anac2024_oneshot, anac2024_oneshot_world_generator, balance_calculator_oneshot

import resilient_exec.adapters.negmas as adapter

RESULTS = "results.json"
# Worlds of a fraction of a second.
SMALL = {
    "n_configs": 1,
    "n_runs_per_world": 1,
    "n_competitors_per_world": 2,
    "n_steps": 3,
    "n_processes": 2,
    "min_factories_per_level": 1,
}


def make(folder, competitors=(Healthy, Thrifty, Saboteur), **kwargs):
    """A one-shot tournament, not run yet; its folder.  Two worlds for each pair of competitors and ``n_configs``."""
    settings = {**SMALL, "compact": False, **kwargs}
    configs = anac2024_oneshot(competitors, tournament_path=folder, configs_only=True, **settings)
    return Path(configs).parent


def assigned(folder):
    """The world sets of a tournament: ``[[config, ...], ...]``."""
    return json.loads((folder / "assigned_configs.json").read_text())


def name_of(world_set):
    """Name of the (only) world of a set."""
    return world_set[0]["world_params"]["name"]


def agents_in(world_set):
    """Types of the agents in the world of a set."""
    world = world_set[0]
    pairs = zip(world["agent_types"], world["agent_params"], strict=True)
    return {(params or {}).get("controller_type", kind).rpartition(".")[2] for kind, params in pairs}


def sabotaged(folder):
    """Names of the worlds in which the saboteur plays, sorted."""
    return sorted(name_of(s) for s in assigned(folder) if "Saboteur" in agents_in(s))


def plan(monkeypatch, folder, faults):
    """Have the saboteur do this: ``{world name: fault}``."""
    path = folder.parent / "plan.json"
    path.write_text(json.dumps(faults))
    monkeypatch.setenv(PLAN, str(path))


def run(folder, parallelism="resilient", generator=anac2024_oneshot_world_generator, lanes=1, **kwargs):
    """Run what has not been run; the adapter's report.  (Each lane spends seconds on importing scml: so, one.)"""
    with adapter.options(max_workers=lanes):
        run_tournament(
            folder,
            world_generator=generator,
            parallelism=parallelism,
            **{"score_calculator": balance_calculator_oneshot, **kwargs},
        )
    return adapter.last_report()


def run_seeded(folder, parallelism="resilient", **kwargs):
    """The same with a seed."""
    with adapter.options(seed=7):
        return run(folder, parallelism, **kwargs)


def set_folders(folder):
    """Folder of each world set, by world name."""
    return {name_of(s): Path(s[0]["__dir_name"]).parent for s in assigned(folder)}


def scores(folder):
    """``{world: [(agent, type, score), ...]}`` of all worlds with results."""
    found = {}
    for world, place in set_folders(folder).items():
        if (place / RESULTS).exists():
            records = json.loads((place / RESULTS).read_text())["scores"]
            found[world] = sorted((r["agent_id"][:6] and r["agent_name"], r["agent_type"], r["score"]) for r in records)
    return found


def starts(folder):
    """How often each world was really started, by negmas' own files."""
    return {world: len(list((place / "attempts").glob("att_*"))) for world, place in set_folders(folder).items()}


def files(place):
    """Files of a world's folder with their number of lines (of text), as negmas left them."""
    found = {}
    for path in sorted(place.rglob("*")):
        if path.is_file() and not {"attempts", "resilient"} & {*path.relative_to(place).parts}:
            text = path.suffix in {".csv", ".json", ".txt"}
            found[str(path.relative_to(place))] = path.read_bytes().count(b"\n") if text else None
    return found


def wipe(folder):
    """Back to where :func:`make` left it."""
    for place in set_folders(folder).values():
        shutil.rmtree(place, ignore_errors=True)
    shutil.rmtree(folder / "resilient", ignore_errors=True)

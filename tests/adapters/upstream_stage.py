"""A stage for what stock negmas does: tournament folders made by hand, and generators of worlds that misbehave.

The generators stand in a module of their own because workers of stock negmas import them by name.
"""

from __future__ import annotations

import json
import os
import signal
from importlib import metadata

from negmas.tournaments import tournaments


def version(package):
    """Major, minor and third number."""
    return tuple(int(part) for part in metadata.version(package).split(".")[:3])


def plan(folder, *names, time_limit=60):
    """A tournament of one-world sets, not run yet: what ``create_tournament`` leaves, as far as it matters here."""
    folder.mkdir(exist_ok=True)
    assigned = [
        [{"__dir_name": str(folder / name / f"{name}.00"), "world_params": {"name": f"{name}.00", "n_steps": 1}}]
        for name in names
    ]
    for (world,) in assigned:
        world["world_params"]["time_limit"] = time_limit
    (folder / "params.json").write_text("{}")
    (folder / "assigned_configs.json").write_text(json.dumps(assigned))
    return assigned


def finish(world_set):
    """Give a world set its results, as far as a resumed tournament looks at them."""
    place = tournaments._path(world_set[0]["__dir_name"]).parent
    place.mkdir(parents=True, exist_ok=True)
    (place / "results.json").write_text(json.dumps({"run_id": tournaments._run_id(world_set)}))


def run_one(world_set, generator, **kwargs):
    """``_run_worlds``, as all routes of negmas call it; its result, whose third part is the score."""
    settings = {"max_attempts": float("inf"), "verbose": False, "override_ran_worlds": False, **kwargs}
    return tournaments._run_worlds(world_set, generator, no_score, None, dry_run=False, **settings)


def no_score(*_):
    """No world gets as far as this."""
    raise AssertionError("a world of these tests has ended")


class Called(Exception):
    """A generator was called: the world set was not refused, and not skipped."""


def called(**_):
    """The world cannot be made, and says that somebody tried."""
    raise Called


def killed(**_):
    """The process is killed while it makes the world."""
    os.kill(os.getpid(), signal.SIGKILL)


def interrupted(**_):
    """What an agent may raise, or something that it calls."""
    raise KeyboardInterrupt("not the user's")

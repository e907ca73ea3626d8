"""Which modules the workers of a tournament are forked with, and when each world has a process of its own."""

from __future__ import annotations

import atexit
import functools
import os
import sys
import types

import pytest
from negmas_agents import Healthy, Thrifty
from negmas_tournaments import assigned, make, run_tournament
from scml.utils import anac2024_oneshot_world_generator

import resilient_exec.adapters.negmas as adapter
from resilient_exec.adapters.negmas import preloading, settings
from resilient_exec.adapters.negmas.preloading import modules_for

GENERATOR = "scml.utils"  # older versions have a partial there, whose own module is functools


class Wrapper:
    """A generator in an object, as a seed wraps one."""

    generator = staticmethod(functools.partial(functools.partial(anac2024_oneshot_world_generator, year=1), a=2))


class Nest:
    class Egg:
        """A competitor that is nested in another class."""


@pytest.mark.parametrize("function", [anac2024_oneshot_world_generator, Wrapper.generator, Wrapper()])
def test_the_generators_own_module_is_preloaded_however_it_is_wrapped(function):
    assert modules_for(("negmas",), [function], []) == ("negmas", GENERATOR)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"{Healthy.__module__}.Healthy", ("negmas", f"{Healthy.__module__}?")),
        (f"{__name__}.Nest.Egg", ("negmas", f"{__name__}?")),
        ("__main__.Mine", ("negmas",)),
        ("never.imported.here.Mine", ("negmas",)),
        ("negmas.Something", ("negmas",)),
        ("Bare", ("negmas",)),
    ],
)
def test_a_competitors_module_is_preloaded_on_trial_where_this_process_has_imported_it(name, expected):
    assert modules_for(("negmas",), [], [name]) == expected


def test_what_cannot_be_imported_by_name_is_not_preloaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "made_at_run_time", types.ModuleType("made_at_run_time"))
    assert modules_for((), [], ["made_at_run_time.Mine"]) == ()


def generate_and_tell(*args, folder, **kwargs):
    (folder / f"{kwargs['world_params']['name'] if 'world_params' in kwargs else id(args)}.{os.getpid()}").touch()
    return anac2024_oneshot_world_generator(*args, **kwargs)


def generate_and_tell_what_is_imported_later(*args, file, **kwargs):
    before = set(sys.modules)
    atexit.register(lambda: file.write_text("\n".join(set(sys.modules) - before)))
    return anac2024_oneshot_world_generator(*args, **kwargs)


@pytest.mark.slow
def test_what_saves_the_tables_of_a_world_is_not_imported_for_each_world(tmp_path):
    """It is some 0.02 s of CPU, and a good part of what a process of its own costs a short world."""
    pytest.importorskip("pyarrow.parquet")
    folder, file = make(tmp_path / "t", competitors=(Healthy, Thrifty), n_configs=1), tmp_path / "imported"
    generator = functools.partial(generate_and_tell_what_is_imported_later, file=file)
    with adapter.options(max_workers=1):
        run_tournament(folder, world_generator=generator, parallelism="resilient", verbose=False)
    assert adapter.last_report().scored == 2
    assert not [name for name in file.read_text().splitlines() if name.startswith("pyarrow")]


@pytest.mark.parametrize(("fresh", "processes"), [(None, 2), pytest.param(False, 1, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_each_world_has_a_process_of_its_own_unless_that_is_not_wanted(tmp_path, fresh, processes):
    folder = make(tmp_path / "t", competitors=(Healthy, Thrifty), n_configs=1)
    worlds = assigned(folder)
    pids = tmp_path / "pids"
    pids.mkdir()
    with adapter.options(max_workers=1, fresh_process=fresh):
        run_tournament(
            folder,
            world_generator=functools.partial(generate_and_tell, folder=pids),
            parallelism="resilient",
            verbose=False,
        )
    assert adapter.last_report().scored == len(worlds) == 2
    assert len({path.suffix for path in pids.iterdir()}) == processes


def test_workers_are_reused_where_something_would_have_to_be_imported_for_each_world(monkeypatch):
    made = []

    class Played:
        def __init__(self, _lanes, **options):
            made.append(options["max_tasks_per_worker"])

        def preloaded(self):
            return ("heavy",)

        def shutdown(self, *, kill=False):
            made.append("killed" if kill else "ended")

    monkeypatch.setattr(preloading, "ResilientPool", Played)
    preloading.pool_for(settings.Settings(), 1, ("negmas",))
    assert made == [1, "ended", None]


def test_a_pool_whose_preload_fails_or_is_interrupted_is_ended(monkeypatch):
    ended = []

    class Played:
        def __init__(self, _lanes, **_options):
            pass

        def preloaded(self):
            raise KeyboardInterrupt

        def shutdown(self, *, kill=False):
            ended.append(kill)

    monkeypatch.setattr(preloading, "ResilientPool", Played)
    with pytest.raises(KeyboardInterrupt):
        preloading.pool_for(settings.Settings(), 1, ("negmas",))
    assert ended == [True]

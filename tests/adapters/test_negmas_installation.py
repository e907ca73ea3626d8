"""How the adapter gets into negmas and out again; no world is run here."""

from __future__ import annotations

import sys
import types
from importlib import metadata

import loky
import negmas.scripts.app
import negmas.tournaments
import negmas.tournaments.neg.simple.cartesian as cartesian
import negmas_tournaments as t
import pytest
import scml.cliadv
from negmas.tournaments import tournaments

import resilient_exec.adapters.negmas as adapter
from resilient_exec.adapters.negmas import checks, installation


@pytest.fixture
def pristine():
    """negmas as it is without us: every function that we replace, by module and name."""
    adapter.uninstall()
    names = ("run_tournament", "_run_parallel", "run_isolated_tasks", "ProcessPoolExecutor", "as_completed")
    return {
        (module, name): vars(module)[name]
        for module in list(sys.modules.values())
        if isinstance(module, types.ModuleType) and module.__name__.startswith(("negmas", "scml"))
        for name in names
        if name in vars(module)
    }


def test_uninstall_puts_back_the_very_objects(pristine):
    adapter.install(negotiations=True, parallel=True)
    replaced = {module for (module, name), value in pristine.items() if vars(module)[name] is not value}
    assert replaced >= {tournaments, negmas.tournaments, negmas.scripts.app, scml.cliadv, cartesian}

    adapter.uninstall()
    assert all(vars(module)[name] is value for (module, name), value in pristine.items())


def test_modules_that_import_before_and_after_are_covered(pristine):
    """Those that imported the name before, and those that do so while we are installed, get the original back."""
    original = pristine[tournaments, "run_tournament"]
    early, late = types.ModuleType("early_bird"), types.ModuleType("late_comer")
    sys.modules |= {"early_bird": early, "late_comer": late}
    try:
        early.run = negmas.tournaments.run_tournament
        adapter.install()
        late.run_tournament = negmas.tournaments.run_tournament
        assert early.run is late.run_tournament is tournaments.run_tournament is not original
        adapter.uninstall()
        assert early.run is late.run_tournament is tournaments.run_tournament is original
    finally:
        del sys.modules["early_bird"], sys.modules["late_comer"]


def test_installing_twice_changes_nothing_and_adds_what_is_asked_for(pristine):
    adapter.install()
    once = tournaments.run_tournament
    adapter.install()
    assert tournaments.run_tournament is once

    name = "run_isolated_tasks" if (cartesian, "run_isolated_tasks") in pristine else "ProcessPoolExecutor"
    assert getattr(cartesian, name) is pristine[cartesian, name]
    adapter.install(negotiations=True)
    assert tournaments.run_tournament is once
    assert getattr(cartesian, name) is not pristine[cartesian, name]


def test_a_stand_in_that_somebody_kept_passes_calls_on_after_uninstall(pristine, tmp_path):
    adapter.install()
    kept = tournaments.run_tournament
    adapter.uninstall()
    (tmp_path / "params.json").write_text("{}")
    with pytest.raises(ValueError, match="world_generator Not found"):
        kept(tmp_path, parallelism="resilient:nonsense", world_generator=None)


def test_the_stand_ins_look_like_the_originals(pristine):
    original = tournaments.run_tournament
    adapter.install()

    assert tournaments.run_tournament.__wrapped__ is original
    assert tournaments.run_tournament.__doc__ == original.__doc__


WRONG = ["resilient:", "resilient:half", "resilient:0", "resilient:1.5", "resilient:nan", "resilient0.5"]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_fraction_is_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match=r'must be "resilient", or "resilient:" and the fraction of the CPUs'):
        t.run_tournament(tmp_path, parallelism=wrong)


def test_a_fraction_means_that_part_of_the_cpus_and_at_least_one_lane(monkeypatch):
    monkeypatch.setattr(loky, "cpu_count", lambda: 10)

    assert [installation._lanes(f"resilient{part}") for part in ("", ":1", ":0.5", ":0.01")] == [10, 10, 5, 1]
    assert installation._lanes("parallel:resilient:0.3") == 3


def test_stock_values_are_taken_over_only_when_asked_for(monkeypatch):
    monkeypatch.setattr(loky, "cpu_count", lambda: 10)
    stock = ["parallel", "parallel:0.5", "local", "par", "p", "p:2"]
    others = ["serial", "s", "none", "dask", "distributed", "dist", "d"]
    assert [installation._lanes(value) for value in stock + others] == [None] * 13

    adapter.install(parallel=True)
    assert [installation._lanes(value) for value in stock] == [10, 5, 10, 10, 10, 20]
    assert [installation._lanes(value) for value in others] == [None] * 7
    with pytest.raises(ValueError, match="what follows the colon must be a number"):
        installation._lanes("parallel:most")


@pytest.mark.parametrize("name", ["_run_worlds", "save_run_results", "run_tournament", "_run_id"])
def test_a_negmas_that_lacks_something_is_refused_with_version_and_name(pristine, monkeypatch, name):
    """A function that is gone; the module is left as it was."""
    monkeypatch.delattr(tournaments, name)
    with pytest.raises(RuntimeError, match=rf"negmas {metadata.version('negmas')}: it needs .*tournaments\.{name}"):
        adapter.install()
    assert all(vars(module)[n] is value for (module, n), value in pristine.items() if n != name)


def test_a_parameter_that_is_gone_or_has_moved_is_named(pristine, monkeypatch):
    monkeypatch.setattr(tournaments, "_run_parallel", lambda parallelism, assigned: None)
    with pytest.raises(RuntimeError, match=r"the parameter 'verbose' of negmas.tournaments.tournaments._run_parallel"):
        adapter.install()
    monkeypatch.undo()
    monkeypatch.setattr(tournaments, "_run_worlds", lambda world_generator, worlds_params, **_: None)
    with pytest.raises(RuntimeError, match=r"\(in this order\) of negmas.tournaments.tournaments._run_worlds"):
        adapter.install()


def test_pandas_3_with_an_old_negmas_is_refused_before_the_start(tmp_path, monkeypatch):
    versions = {"negmas": "0.14.0", "pandas": "3.1.0"}
    monkeypatch.setattr(checks.metadata, "version", versions.__getitem__)
    with pytest.raises(adapter.CheckFailed, match=r'pandas 3.1.0: .*pip install "pandas<3"'):
        t.run_tournament(tmp_path, parallelism="resilient")
    for fine in ({"negmas": "0.14.0", "pandas": "2.3.1"}, {"negmas": "0.15.7", "pandas": "3.1.0"}):
        versions.update(fine)
        checks.check_pandas()


def test_a_wrong_environment_is_refused_before_the_first_world(tmp_path, monkeypatch):
    monkeypatch.setenv("RESILIENT_EXEC_TIMEOUT", "never")
    with pytest.raises(ValueError, match="RESILIENT_EXEC_TIMEOUT='never'"):
        t.run_tournament(tmp_path, parallelism="resilient")

"""What a tournament's folder remembers beside negmas' own files; no world is run here."""

from __future__ import annotations

import json
import sys
from functools import partial
from types import SimpleNamespace

import pytest
from negmas.helpers.inout import dump
from negmas.tournaments import tournaments

from resilient_exec.adapters.negmas.worlds import provenance
from resilient_exec.adapters.negmas.worlds.provenance import FILE_NAME, complete, describe, rebuild
from resilient_exec.adapters.negmas.worlds.seeding import Seeded


def generator(*, year, world_params=None, **more):
    """Of worlds, if the year is known."""
    return year, world_params, more


def calculator(worlds, context, dry_run, factor=1):
    """Of scores."""
    return factor


class Family:
    """Of generators."""

    @classmethod
    def generator(cls, **config):
        return cls, config

    def __call__(self, **config):
        return self, config


@pytest.fixture
def folder(tmp_path):
    """A tournament as negmas creates one: by bare names."""
    params = {
        f"{role}_name": f"{__name__}.{role.partition('_')[2]}" for role in ("world_generator", "score_calculator")
    }
    (tmp_path / "params.json").write_text(json.dumps(params))
    dump([[{"world_params": {"name": "a"}, "__dir_name": "d"}]], tmp_path / "assigned_configs.pickle")
    return tmp_path


def settled(folder, seed=None, generator=None, calculator=None, *, override=False):
    """The arguments of ``run_tournament``, completed."""
    call = {"world_generator": generator, "score_calculator": calculator, "override_ran_worlds": override}
    complete(tournaments, folder, call, seed)
    return SimpleNamespace(**call)


def score_one(folder):
    """As if a world had been run."""
    (folder / "a").mkdir(exist_ok=True)
    (folder / "a" / "results.json").write_text("{}")


@pytest.mark.parametrize(
    "function",
    [
        generator,
        partial(generator, year=2024),
        partial(partial(generator, 1, year=2023), 2, year=2024, more={"a": [1, None]}),
        Family.generator,
        partial(Family.generator, a=1.5),
    ],
)
def test_functions_and_partials_of_them_are_found_again(function):
    description = json.loads(json.dumps(describe(function)))
    again = rebuild(description)

    if isinstance(function, partial):
        assert (again.func, again.args, again.keywords) == (function.func, function.args, function.keywords)
    else:
        assert again == function


def test_what_has_no_name_is_written_down_as_lost():
    def closure(**config):
        return config

    for function in (closure, lambda **_: None, Family(), Family().__call__, partial(closure, a=1)):
        assert "cannot be found by a name" in describe(function)["lost"]
    for value in (object(), (1, 2), {1: 2}):
        assert "not plain values" in describe(partial(generator, year=value))["lost"]
    with pytest.raises(ValueError, match="cannot be found by a name"):
        rebuild(describe(closure))


def test_a_partial_that_negmas_stores_by_its_bare_name_survives(folder):
    """What happens with every tournament of scml 0.7."""
    settled(folder, generator=partial(generator, year=2024), calculator=partial(calculator, factor=3))
    resumed = settled(folder)

    assert resumed.world_generator(world_params=1) == (2024, 1, {})
    assert resumed.score_calculator(None, None, None) == 3


def test_a_function_that_lacks_an_argument_is_refused_with_the_remedy(folder):
    with pytest.raises(ValueError, match=r"also needs 'year'.*every world would be lost.*world_generator=\.\.\.\)"):
        settled(folder)
    assert not (folder / "resilient" / FILE_NAME).exists()

    params = json.loads((folder / "params.json").read_text())
    (folder / "params.json").write_text(json.dumps({**params, "world_generator_name": f"{__name__}.no_more"}))
    with pytest.raises(ValueError, match=r"'no_more'.*world_generator=\.\.\."):
        settled(folder)


def test_a_function_that_needs_no_more_than_negmas_gives_is_taken_by_its_name(folder):
    params = json.loads((folder / "params.json").read_text())
    (folder / "params.json").write_text(json.dumps({**params, "world_generator_name": f"{__name__}.settled_by_name"}))
    resumed = settled(folder)

    assert resumed.world_generator is settled_by_name
    assert resumed.score_calculator is calculator


def settled_by_name(world_params):
    """A generator without an open end."""
    return world_params


def test_a_lost_generator_is_asked_for_and_replaced_by_one_that_can_be_found(folder):
    settled(folder, generator=lambda **_: None, calculator=calculator)
    with pytest.raises(ValueError, match=r"<lambda>.*cannot be found by a name.*world_generator=\.\.\."):
        settled(folder)
    settled(folder, generator=settled_by_name)
    assert settled(folder).world_generator is settled_by_name


def test_the_first_one_counts_and_what_is_named_wins(folder):
    settled(folder, generator=settled_by_name, calculator=calculator)
    other = partial(generator, year=1)

    assert settled(folder, generator=other).world_generator is other
    assert settled(folder).world_generator is settled_by_name


def test_a_tournament_goes_on_with_the_seed_and_the_hash_order_it_was_begun_with(folder, monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "5")
    settled(folder, 7, settled_by_name, calculator)
    score_one(folder)
    monkeypatch.setenv("PYTHONHASHSEED", "6")

    assert settled(folder).world_generator == Seeded(settled_by_name, 7, "5")
    assert settled(folder, 7).world_generator == Seeded(settled_by_name, 7, "5")
    with pytest.raises(ValueError, match=r"seed=8: the worlds .* were run with seed=7; .*override_ran_worlds=True"):
        settled(folder, 8)
    assert settled(folder, 8, override=True).world_generator == Seeded(settled_by_name, 8, "6")


def test_a_seed_is_not_added_to_worlds_that_were_scored_without_one(folder):
    settled(folder, None, settled_by_name, calculator)
    assert settled(folder, 3).world_generator.seed == 3  # none was scored yet
    settled(folder, None, settled_by_name, calculator, override=True)
    (folder / "resilient" / FILE_NAME).unlink()
    settled(folder, None, settled_by_name, calculator)
    score_one(folder)
    with pytest.raises(ValueError, match="were run with no seed"):
        settled(folder, 3)


def test_a_file_that_was_cut_short_counts_as_none(folder):
    settled(folder, 7, settled_by_name, calculator)
    text = (folder / "resilient" / FILE_NAME).read_text()
    (folder / "resilient" / FILE_NAME).write_text(text[: len(text) // 2])
    assert provenance.of_folder(folder) == {}
    assert settled(folder, 7, settled_by_name).world_generator.seed == 7


def test_a_tournament_whose_creation_was_cut_short_is_told_from_one_that_can_go_on(folder):
    """negmas would try the JSON beside it, in which scml's arrays are strings, and lose every world."""
    pickle = folder / "assigned_configs.pickle"
    for content in (pickle.read_bytes()[:-9], b""):
        pickle.write_bytes(content)
        with pytest.raises(ValueError, match=r"interrupted while it was created.*Remove the folder and start anew"):
            settled(folder, None, settled_by_name, calculator)
    pickle.unlink()
    with pytest.raises(ValueError, match=r"assigned_configs.pickle .* is missing or cut short"):
        settled(folder, None, settled_by_name, calculator)


def test_a_generator_of_main_is_looked_for_in_the_program_that_resumes(folder, monkeypatch):
    main = sys.modules["__main__"]

    def mine(world_params):
        return world_params

    monkeypatch.setattr(mine, "__module__", "__main__")
    monkeypatch.setattr(mine, "__qualname__", "mine")
    monkeypatch.setattr(main, "mine", mine, raising=False)
    settled(folder, None, mine, calculator)
    assert settled(folder).world_generator is mine
    monkeypatch.delattr(main, "mine")
    with pytest.raises(ValueError, match=r"it was __main__:mine: .*world_generator=\.\.\."):
        settled(folder)

"""Seeds: from names, over the environment, into generators; no tournament is run here."""

from __future__ import annotations

import math
import os
import random
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from negmas.mechanisms import Mechanism
from negmas.sao import SAOMechanism

from resilient_exec.adapters.negmas.worlds import seeding
from resilient_exec.adapters.negmas.worlds.seeding import Seeded, hash_seed, serial_run, world_seed

TRIED = "_Mechanism__last_second_tried"


def config(name):
    """What a generator gets."""
    return {"world_params": {"name": name, "more": 1}, "is_default": True}


def drawing(**config):
    """A generator that takes its parameters apart, and returns what it draws."""
    config["world_params"].clear()
    return random.random(), np.random.random()  # noqa: NPY002


def seeding_itself(**config):
    """A generator that would undo every seed."""
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    return drawing(**config)


@pytest.fixture(autouse=True)
def undisturbed(monkeypatch):
    """The random state, the clock and the environment are as before."""
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    with serial_run(Seeded(drawing, 1, "0")):
        yield
    assert TRIED not in vars(Mechanism)


def test_a_world_s_seed_follows_from_the_seed_and_the_name_without_the_moment_of_creation():
    early, late = "000020261124H171642969734WDA3_G-Rctz.00", "000020270101H000000000001WDA3_G-Rctz.00"
    other = "000020261124H171642969734WDA3_G-Rctz.01"

    assert world_seed(7, early) == world_seed(7, late) == 4648956547581740520
    assert len({world_seed(7, early), world_seed(8, early), world_seed(7, other), world_seed(7, early, "run")}) == 4


def test_numerical_libraries_in_workers_have_one_thread_whatever_the_number_of_workers(monkeypatch):
    for name in [name for name in os.environ if name.endswith("_NUM_THREADS")]:
        monkeypatch.delenv(name)
    expected = {"PYTHONHASHSEED": "3", "OMP_NUM_THREADS": "1", "VECLIB_MAXIMUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    assert Seeded(drawing, 7, "3").environment == expected
    assert Seeded(drawing, 7, "3").other_environment == {**expected, "PYTHONHASHSEED": "4"}
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "4")
    assert Seeded(drawing, 7, "3").environment == {"PYTHONHASHSEED": "3"}


@pytest.mark.parametrize(
    ("given", "expected"), [({"PYTHONHASHSEED": "3"}, "3"), ({"PYTHONHASHSEED": "random"}, "7"), ({}, "7")]
)
def test_workers_hash_as_this_process_does_or_as_the_seed_says(given, expected):
    assert hash_seed(7, given) == expected
    assert hash_seed(2**32 + 9, {}) == "9"  # there are no more


@pytest.mark.parametrize("generator", [drawing, seeding_itself])
def test_what_was_drawn_before_and_what_a_generator_draws_do_not_matter(generator):
    def played(seed, name, before):
        random.seed(before)
        world = Seeded(generator, seed, "0")(**config(name))
        return world, random.random(), np.random.random()  # noqa: NPY002

    first = played(7, "a", before=1)
    assert played(7, "a", before=2) == first
    assert played(7, "b", before=1)[1:] != first[1:]
    assert played(8, "a", before=1)[1:] != first[1:]


def test_a_passing_second_draws_no_number_unless_something_depends_on_it():
    Seeded(drawing, 7, "0")(**config("a"))
    calm, counting = SAOMechanism(n_steps=5, outcomes=3), SAOMechanism(pend_per_second=0.1, outcomes=3)

    assert getattr(calm, TRIED) == math.inf
    assert getattr(counting, TRIED) == 0
    setattr(counting, TRIED, 4)
    assert getattr(counting, TRIED) == 4


def test_a_serial_run_leaves_the_random_state_and_the_clock_as_they_were():
    mechanism = SAOMechanism(n_steps=5, outcomes=3)
    random.seed(5)
    expected = random.random()
    random.seed(5)
    outer, inner = Seeded(drawing, 7, "0"), Seeded(drawing, 8, "0")
    with serial_run(outer):
        outer(**config("a"))
        with serial_run(inner):
            inner(**config("b"))
        assert getattr(mechanism, TRIED) == math.inf  # still: the outer one goes on

    assert random.random() == expected


def test_a_serial_run_in_a_process_with_another_hash_order_says_what_to_set():
    with pytest.warns(RuntimeWarning, match=r"start it with PYTHONHASHSEED=7$"), serial_run(Seeded(drawing, 7, "7")):
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with serial_run(Seeded(drawing, 7, "0")):
            pass


def test_a_negmas_whose_clock_cannot_be_calmed_is_refused(monkeypatch):
    seeding.check_clock()
    monkeypatch.setattr(seeding, "_mechanism", lambda: SimpleNamespace(step=drawing))
    with pytest.raises(RuntimeError, match=r"step has no _Mechanism__last_second_tried; run without a seed"):
        seeding.check_clock()

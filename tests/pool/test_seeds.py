"""``seed=``: each task has random numbers of its own, which follow from the seed and its key alone."""

from __future__ import annotations

import random

import pool_random as tasks
import pytest

from resilient_exec import task_context
from resilient_exec.worker.random_streams import derived


def expected(seed, key):
    rng = random.Random(derived(seed, key, "rng"))
    return rng.random(), rng.random()


NUMBERED = [expected(7, number) for number in range(12)]


@pytest.mark.parametrize("lanes", [1, 3])
def test_the_numbers_are_the_same_in_whatever_way_the_calls_are_made(make_pool, lanes):
    def fresh():
        return make_pool(lanes, seed=7)

    pool = fresh()
    assert [future.result(60) for future in [pool.submit(tasks.draw) for _ in range(12)]] == NUMBERED
    assert list(fresh().map(tasks.draw, range(12))) == NUMBERED
    assert list(fresh().map(tasks.draw, range(12), chunksize=5)) == NUMBERED
    settled = sorted(fresh().settled(tasks.draw, range(12)), key=lambda done: done.index)
    assert [done.value for done in settled] == NUMBERED
    assert [done.key for done in settled] == list(range(12))


def test_what_comes_behind_chunks_goes_on_where_single_calls_would(make_pool):
    pool = make_pool(2, seed=7)
    assert list(pool.map(tasks.draw, range(5), chunksize=3)) == NUMBERED[:5]
    assert pool.submit(tasks.draw).result(60) == NUMBERED[5]


def test_they_are_the_same_in_each_attempt(make_pool):
    pool = make_pool(2, seed=7)
    assert [future.result(60) for future in [pool.submit(tasks.draw_at_last, 3) for _ in range(4)]] == NUMBERED[:4]


def test_a_key_decides_and_a_number_given_as_a_key_runs_that_task_again(make_pool):
    pool = make_pool(2, seed=7)
    assert pool.options(key=("case", 1)).submit(tasks.draw).result(60) == expected(7, ("case", 1))
    assert pool.options(key=9).submit(tasks.draw).result(60) == NUMBERED[9]
    assert pool.submit(tasks.draw).result(60) == NUMBERED[0]  # keys take no numbers


def test_a_key_of_a_class_of_the_user_s_counts_as_its_text(make_pool):
    pool = make_pool(1, seed=7)
    assert pool.options(key=tasks.Key("a")).submit(tasks.draw).result(60) == expected(7, "Key(a)")


def test_a_key_that_differs_from_run_to_run_is_refused_when_it_is_submitted(make_pool):
    view = make_pool(1, seed=7).options(key=object())
    with pytest.raises(TypeError, match="with seed= a key must be the same in every run"):
        view.submit(tasks.draw)
    make_pool(1).options(key=object()).submit(tasks.draw).result(60)


def test_numpy_has_a_sequence_of_its_own(make_pool):
    np = pytest.importorskip("numpy")
    first = int(np.random.default_rng(np.random.SeedSequence(derived(7, 0, "numpy"))).integers(2**63))
    assert first == 6659381208080568357
    assert make_pool(1, seed=7).submit(tasks.draw_with_numpy).result(60) == first
    assert next(make_pool(1, seed=7).map(tasks.draw_with_numpy, range(3), chunksize=3)) == first


def test_drawing_imports_no_numpy_and_where_there_is_none_it_is_said(make_pool):
    pool = make_pool(1, seed=7)
    assert pool.submit(tasks.modules_after_drawing).result(60) is False
    numbers, said = pool.submit(tasks.without_numpy).result(60)
    assert numbers == NUMBERED[1]
    assert "numpy cannot be imported here: install it, or use task_context().rng" in said


def test_the_initializer_runs_as_ever(make_pool, tmp_path):
    import pool_tasks

    path = tmp_path / "initialized"
    pool = make_pool(1, seed=7, initializer=pool_tasks.note, initargs=(str(path), "here"))
    assert pool.submit(tasks.draw).result(60) == NUMBERED[0]
    assert path.read_text() == "here\n"


def test_without_a_seed_and_outside_a_pool_they_are_new_each_time(make_pool):
    pool = make_pool(1)
    drawn = [pool.submit(tasks.draw).result(60) for _ in range(3)] + [tasks.draw(), tasks.draw()]
    assert len(set(drawn)) == 5
    assert task_context().rng is task_context().rng


def test_drawing_leaves_the_global_generators_alone(make_pool):
    random.seed(1)
    before = random.getstate()
    pool = make_pool(1, seed=7)
    pool.submit(tasks.draw).result(60)
    tasks.draw()
    assert random.getstate() == before

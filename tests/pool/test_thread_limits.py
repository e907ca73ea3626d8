"""Numerical libraries in all workers together start no more threads than there are CPUs."""

from __future__ import annotations

import os
import sys

import loky
import pool_threads as tasks
import pytest

NAMES = {
    "BLIS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
}
linux = pytest.mark.skipif(sys.platform != "linux", reason="threads are counted, and workers forked, on Linux only")


@pytest.fixture(autouse=True)
def unlimited(monkeypatch):
    """Whatever this process's own environment says."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("preload", [(), pytest.param(("json",), marks=linux)])
@pytest.mark.parametrize("lanes", [1, 2, 1000])
def test_each_worker_has_its_share_of_the_cpus(make_pool, lanes, preload):
    pool = make_pool(lanes, preload=preload)
    share = str(max(1, loky.cpu_count() // lanes))
    assert pool.submit(tasks.limits).result(60) == dict.fromkeys(NAMES, share)


def test_this_process_s_environment_is_left_alone_and_none_sets_nothing(make_pool):
    before = dict(os.environ)
    assert make_pool(2, inner_max_num_threads=None).submit(tasks.limits).result(60) == {}
    assert make_pool(2).submit(tasks.limits).result(60)
    assert dict(os.environ) == before


def test_a_limit_of_the_user_s_environment_counts(make_pool, monkeypatch):
    monkeypatch.setenv("NUMBA_NUM_THREADS", "77")
    found = make_pool(1000).submit(tasks.limits).result(60)
    assert found == dict.fromkeys(NAMES, "1") | {"NUMBA_NUM_THREADS": "77"}


@pytest.mark.parametrize("way", ["environment", "env"])
def test_one_for_openmp_counts_for_those_that_follow_it(make_pool, monkeypatch, way):
    """OpenBLAS with a variable of its own would not look at OMP_NUM_THREADS any more."""
    env = {"OMP_NUM_THREADS": "77"}
    if way == "environment":
        monkeypatch.setenv("OMP_NUM_THREADS", "77")
        env = None
    found = make_pool(1000, env=env).submit(tasks.limits).result(60)
    assert found == {"OMP_NUM_THREADS": "77", "NUMBA_NUM_THREADS": "1", "VECLIB_MAXIMUM_THREADS": "1"}


def test_a_number_counts_more_than_the_environment_and_env_most_of_all(make_pool, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "77")
    pool = make_pool(2, inner_max_num_threads=3, env={"MKL_NUM_THREADS": "5"})
    assert pool.submit(tasks.limits).result(60) == dict.fromkeys(NAMES, "3") | {"MKL_NUM_THREADS": "5"}


@linux
@pytest.mark.skipif(loky.cpu_count() < 2, reason="a library starts no more threads than there are CPUs anyway")
@pytest.mark.parametrize("preload", [(), ("numpy",)], ids=["imported", "preloaded"])
def test_numpy_starts_that_many_threads(make_pool, preload):
    pytest.importorskip("numpy")
    one, two = (make_pool(1, inner_max_num_threads=most, preload=preload) for most in (1, 2))
    alone = one.submit(tasks.threads_of_numpy).result(60)
    assert two.submit(tasks.threads_of_numpy).result(60) == alone + 1

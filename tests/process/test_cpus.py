"""Our count of CPUs is loky's, without its import."""

from __future__ import annotations

import os

import loky
import pytest

from resilient_exec.process import cpus


def test_it_is_what_loky_says():
    assert cpus.usable_cpus() == loky.cpu_count()


@pytest.mark.parametrize("most", ["1", "3", "0", "-4"])
def test_also_with_a_limit_in_the_environment(monkeypatch, most):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", most)
    assert cpus.usable_cpus() == loky.cpu_count()


def test_also_with_an_affinity():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert cpus.usable_cpus() == loky.cpu_count() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("max 100000", 8), ("150000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8), ("nonsense", 8)],
)
def test_a_cgroups_quota_is_rounded_up(monkeypatch, tmp_path, text, expected):
    (tmp_path / "cpu.max").write_text(text)
    monkeypatch.setattr(cpus, "_VERSION_2", str(tmp_path / "cpu.max"))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(cpus, "_by_affinity", lambda cpus: cpus)
    assert cpus.usable_cpus() == expected


def test_without_cgroups_all_count(monkeypatch, tmp_path):
    monkeypatch.setattr(cpus, "_VERSION_2", str(tmp_path / "none"))
    monkeypatch.setattr(cpus, "_VERSION_1", (str(tmp_path / "none"), str(tmp_path / "none")))
    assert cpus._by_cgroup(8) == 8

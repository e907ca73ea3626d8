"""How many CPUs this process may use: by affinity, cgroup and ``LOKY_MAX_CPU_COUNT``, as ``loky.cpu_count()`` says.

Counted here, because to import loky takes longer than to start a worker.
"""

from __future__ import annotations

import contextlib
import math
import os

__all__ = ["usable_cpus"]

_VERSION_2 = "/sys/fs/cgroup/cpu.max"
_VERSION_1 = ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def usable_cpus() -> int:
    """The number of CPUs that this process may use, at least 1."""
    all_cpus = os.cpu_count() or 1
    limits = [all_cpus, _by_affinity(all_cpus), _by_cgroup(all_cpus), _by_environment(all_cpus)]
    return max(1, min(limits))


def _by_affinity(all_cpus: int) -> int:
    with contextlib.suppress(AttributeError, NotImplementedError, OSError):  # not on every system
        return len(os.sched_getaffinity(0))
    return all_cpus


def _by_cgroup(all_cpus: int) -> int:
    try:
        if os.path.exists(_VERSION_2):
            quota, period = _read(_VERSION_2).split()
        else:
            quota, period = map(_read, _VERSION_1)
        if quota != "max" and int(quota) > 0 and int(period) > 0:
            return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # there is no such cgroup
        pass
    return all_cpus


def _by_environment(all_cpus: int) -> int:
    return int(os.environ.get("LOKY_MAX_CPU_COUNT", all_cpus))


def _read(name: str) -> str:
    with open(name, encoding="ascii") as file:
        return file.read().strip()

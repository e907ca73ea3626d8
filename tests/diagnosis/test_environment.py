"""What the doctor says of an environment: each line is seen when all is well, and when it is not."""

from __future__ import annotations

import pytest

from resilient_exec.diagnosis.environment import Environment, judge, meets

GIB = 2**30
GOOD = {
    "lanes": 4,
    "cpus": 4,
    "versions": {"negmas": "0.16.0", "scml": "0.8.4", "pandas": "3.1.1"},
    "requirements": {"scml": (">=0.15",)},
    "available_memory": 16 * GIB,
    "folders": {"/results": 100 * GIB},
    "open_files": 4096,
    "stdout": "a file",
}
WRONG = {  # what is wrong, the line that says so, how bad it is, a word of it
    "python 3.12.1": ({"python": (3, 12, 1)}, "python", "bad", "gh-113964"),
    "gh-115634": ({"replaces_workers": False}, "python", "warn", "gh-115634"),
    "negmas with it": ({"max_tasks": 10, "replaces_workers": False}, "negmas", "bad", "max_tasks_per_child=10"),
    "pandas": (
        {"versions": {"negmas": "0.11.3", "pandas": "3.0"}, "requirements": {}},
        "pandas",
        "bad",
        "cannot combine",
    ),
    "scml": ({"requirements": {"scml": (">=0.17",)}}, "scml", "bad", ">=0.17"),
    "fork": ({"start_method": "fork"}, "start method", "warn", "deadlock"),
    "memory of the cgroup": ({"cgroup_memory": GIB // 2}, "cgroup", "bad", "512 MiB"),
    "pids of the cgroup": ({"cgroup_pids": 10}, "cgroup", "bad", "10 more"),
    "CPUs of the cgroup": ({"cgroup_cpus": 0.5}, "cgroup", "warn", "0.5 CPUs"),
    "memory": ({"available_memory": GIB // 2}, "memory", "bad", "512 MiB"),
    "little memory": ({"available_memory": 2 * GIB}, "memory", "warn", "2048 MiB"),
    "memory not known": ({"available_memory": None}, "memory", "warn", "not known"),
    "full disk": ({"folders": {"/results": 1000}}, "disk /results", "bad", "0 MiB"),
    "little room": ({"folders": {"/results": 200 * 2**20}}, "disk /results", "warn", "200 MiB"),
    "no right to write": ({"folders": {"/results": None}}, "disk /results", "bad", "nothing can be written"),
    "descriptors": ({"open_files": 64}, "ulimit", "bad", "64"),
    "processes": ({"processes": 5}, "ulimit", "bad", "-u"),
    "file size": ({"file_size": 1024}, "ulimit", "bad", "-f"),
    "BLAS": ({"blas": {"OMP_NUM_THREADS": "16"}}, "BLAS threads", "bad", "16 threads in each of 4"),
    "BLAS not limited": ({"has_numpy": True}, "BLAS threads", "warn", "4 threads"),
    "clock": ({"clock": 3600.0}, "clock", "bad", "past"),
    "clock of the disk": ({"skew": 90.0}, "clock", "warn", "90 s"),
    "closed stdout": ({"stdout": "closed"}, "stdout", "bad", "closed"),
    "pipe": ({"stdout": "a pipe"}, "stdout", "warn", "pipe"),
    "terminal": ({"stdout": "a terminal"}, "stdout", "warn", "terminal"),
    "no pidfd": ({"missing": ("pidfd_open",)}, "resilient-exec", "warn", "pidfd_open"),
    "no py-spy": ({"hindered": ("py-spy is not installed",)}, "watch", "warn", "py-spy"),
    "agent": ({"agents": {"a:B": "cannot be imported"}}, "a:B", "bad", "cannot be imported"),
}


def by_name(**given):
    return {check.name: check for check in judge(Environment(**{**GOOD, **given}))}


def test_a_good_environment_has_nothing_but_good_lines():
    checks = by_name(agents={"a:B": ""})
    assert {check.level for check in checks.values()} == {"ok"}
    assert not any(check.remedy for check in checks.values())
    assert checks.keys() == {name for _, name, _, _ in WRONG.values()}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_in_its_line_with_the_remedy(what):
    given, name, level, word = WRONG[what]
    checks = by_name(**given)
    assert checks[name].level == level
    assert word in checks[name].text
    assert checks[name].remedy
    others = {other.level for other in checks.values() if other.name != name}
    assert others == {"ok"} or what == "negmas with it"  # which the Python is told of, too


@pytest.mark.parametrize(
    ("version", "wanted", "met"),
    [
        ("0.11.3", ">=0.11", True),
        ("0.11", ">=0.11.0", True),
        ("0.10.9", ">=0.11", False),
        ("1.0", "<1", False),
        ("0.15.2", "~=0.15.1", True),
        ("0.16.0", "~=0.15.1", False),
        ("0.15.2", "==0.15.*", True),
        ("0.15.2", "!=0.15.*", False),
        ("0.15.2", "@ file:///somewhere", True),
    ],
)
def test_requirements_are_compared_by_their_numbers(version, wanted, met):
    assert meets(version, wanted) is met

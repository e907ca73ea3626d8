"""Options of the adapter: where they come from, who wins, and what is refused."""

from __future__ import annotations

import math

import pytest

from resilient_exec import RetryPolicy
from resilient_exec.adapters.negmas import install, options, settings
from resilient_exec.pool.options import WrongSetting

SIZE = 'a number of bytes or a text such as "2GiB", at least 1 MiB and at most 1024 TiB, or None'
ENVIRONMENT = {
    "RESILIENT_EXEC_WORKERS": "3",
    "RESILIENT_EXEC_TIMEOUT": "2.5",
    "RESILIENT_EXEC_START_TIMEOUT": "60",
    "RESILIENT_EXEC_MEMORY_LIMIT": "2GiB",
    "RESILIENT_EXEC_RETRIES": "4",
    "RESILIENT_EXEC_TASKS_PER_WORKER": "7",
    "RESILIENT_EXEC_MARKER_WAIT": "0",
    "RESILIENT_EXEC_OUTPUT_LIMIT": "1000",
    "RESILIENT_EXEC_SEED": "7",
    "RESILIENT_EXEC_VERIFY": "2",
}


def test_the_defaults_try_deaths_again_and_timeouts_not():
    chosen = settings.current()

    assert (chosen.retry.deaths, chosen.retry.timeouts) == (2, 0)
    assert chosen.timeout is settings.UNSET
    assert chosen.max_workers is None


def test_the_environment_sets_every_option(monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)

    assert settings.current() == settings.Settings(
        max_workers=3,
        timeout=2.5,
        start_timeout=60.0,
        memory_limit=2 << 30,
        retry=RetryPolicy(deaths=4, timeouts=0, memory=1),
        max_tasks_per_worker=7,
        marker_wait=0.0,
        output_limit=1000,
        seed=7,
        verify=2,
    )


def test_an_empty_variable_counts_as_not_set(monkeypatch):
    monkeypatch.setenv("RESILIENT_EXEC_TIMEOUT", "")

    assert settings.current().timeout is settings.UNSET


def test_options_nest_win_over_the_environment_and_are_put_back(monkeypatch):
    monkeypatch.setenv("RESILIENT_EXEC_TIMEOUT", "100")
    with options(timeout=5, max_workers=2):
        with options(timeout=None, retry=3) as inner:
            assert (inner.timeout, inner.max_workers, inner.retry.total) == (None, 2, 3)
            assert inner == settings.current()
        assert (settings.current().timeout, settings.current().retry.total) == (5, None)
    assert (settings.current().timeout, settings.current().max_workers) == (100, None)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        (
            "RESILIENT_EXEC_TIMEOUT",
            "soon",
            'a number of seconds, more than 0, a text such as "5m", or None for no limit',
        ),
        ("RESILIENT_EXEC_TIMEOUT", "-1", 'a number of seconds, more than 0, a text such as "5m", or None for no limit'),
        (
            "RESILIENT_EXEC_TIMEOUT",
            "nan",
            'a number of seconds, more than 0, a text such as "5m", or None for no limit',
        ),
        ("RESILIENT_EXEC_MEMORY_LIMIT", "much", SIZE),
        ("RESILIENT_EXEC_MEMORY_LIMIT", "1000", SIZE),
        ("RESILIENT_EXEC_WORKERS", "0", "a whole number, 1 or more"),
        ("RESILIENT_EXEC_WORKERS", "1.5", "a whole number, 1 or more"),
        ("RESILIENT_EXEC_WORKERS", "inf", "a whole number, 1 or more"),
        ("RESILIENT_EXEC_RETRIES", "-1", "a whole number of further attempts after a death, 0 or more"),
        ("RESILIENT_EXEC_MARKER_WAIT", "inf", "a finite number of seconds, 0 or more"),
        ("RESILIENT_EXEC_SEED", "-1", "a whole number, 0 or more, or None"),
        ("RESILIENT_EXEC_SEED", "luck", "a whole number, 0 or more, or None"),
        ("RESILIENT_EXEC_START_TIMEOUT", "0", 'a finite number of seconds, more than 0, or a text such as "5m"'),
    ],
)
def test_a_wrong_variable_is_refused_by_name_value_and_rule(monkeypatch, name, value, rule):
    """At install, and by whoever asks for the options later."""
    monkeypatch.setenv(name, value)
    for ask in (install, settings.current):
        with pytest.raises(ValueError) as caught:
            ask()
        told, _, remedy = str(caught.value).partition("; ")
        assert told == f"{name}={value!r}: must be {rule}"
        assert remedy.startswith("unset it, or set another value, such as ")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("TIMOUT", "TIMEOUT"),
        ("TIMEOUTS", "TIMEOUT"),
        ("MEMORYLIMIT", "MEMORY_LIMIT"),
        ("WORKER", "WORKERS"),
        ("MAX_WORKERS", "WORKERS"),
        ("RETRY", "RETRIES"),
        ("MAX_TASKS_PER_WORKER", "TASKS_PER_WORKER"),
        ("DISQUALIFY", "DISQUALIFY_AFTER"),
        ("seed", None),
        ("JOURNAL", None),
        ("TEST_PARENT", None),
        ("WORKER_26920_5f3a_", None),  # as the pool marks its workers
    ],
)
def test_a_misspelt_variable_is_refused_and_another_name_is_left_alone(monkeypatch, name, meant):
    monkeypatch.setenv(f"RESILIENT_EXEC_{name}", "7")
    if meant is None:
        settings.current()
        return
    words = f"RESILIENT_EXEC_{name} is not read by anything; unset it, or set RESILIENT_EXEC_{meant} if that is meant"
    with pytest.raises(WrongSetting, match=f"^{words}$"):
        settings.current()


def test_the_value_that_a_refusal_names_would_do(monkeypatch):
    for variable in settings._ENVIRONMENT:
        monkeypatch.setenv(variable, "nonsense")
        with pytest.raises(WrongSetting) as caught:
            settings.current()
        monkeypatch.setenv(variable, str(caught.value).rpartition("=")[2])
        settings.current()


WRONG = {
    "max_workers": [0, -1, 1.5, "many", True, [], math.nan, math.inf],
    "timeout": [0, -1, "soon", True, [], math.nan, 1e300, 10**400],
    "start_timeout": [0, None, "soon", False, math.inf, 10**400],
    "memory_limit": [0, 1000, 5.0, "much", True, [], 1 << 70, "9" * 400],
    "retry": [0, -1, None, True, 1.5, "often"],
    "max_tasks_per_worker": [0, -1, 1.5, "many", True],
    "fresh_process": [2, "maybe", 1.0, []],
    "preload": [None, 1, "maybe", []],
    "marker_wait": [-1, None, "long", math.inf, 10**400],
    "output": ["away", None, 1, ["file"]],
    "retry_failed": ["maybe", 2, None],
    "output_limit": [True, None, -1, 1.5, "much", -(10**400)],
    "seed": [-1, 7.0, True, "luck", "9" * 5000, []],
    "verify": [-1, None, 1.5, "all", True],
    "step_timeout": [0, -1, "soon", True, math.nan],
    "disqualify_after": [0, -1, 1.5, "soon", True],
    "take_over": [None, 2, "maybe", []],
    "observers": [print, None, 3, [1]],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_no_wrong_value_of_any_option_is_taken_or_trips_over_itself(name, value):
    assert WRONG.keys() == settings._RULES.keys()
    with pytest.raises((ValueError, TypeError), match=rf"^{name}|retry must be") as caught:
        options(**{name: value})
    assert type(caught.value) in (ValueError, TypeError)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"timeout": 0}, ValueError, "timeout=0: must be a number of seconds, more than 0, a text such as"),
        ({"max_workers": True}, ValueError, "max_workers=True: must be a number"),
        ({"memory_limit": 5.0}, ValueError, "memory_limit=5.0: must be a number of bytes"),
        ({"seed": 7.0}, ValueError, "seed=7.0: must be a whole number, 0 or more, or None"),
        ({"seed": True}, ValueError, "seed=True: must be a whole number"),
        ({"verify": -1}, ValueError, "verify=-1: must be a whole number, 0 or more"),
        ({"retry": 0}, ValueError, "retry=0: retry must be at least 1"),
        ({"retry": "often"}, TypeError, "retry must be a RetryPolicy or a number"),
        ({"observers": print}, ValueError, "observers=.*: must be a list of callables"),
        ({"max_worker": 1}, TypeError, "there is no option 'max_worker'; there are: max_workers, timeout,"),
    ],
)
def test_wrong_options_are_refused_by_the_call_itself(given, error, words):
    with pytest.raises(error, match=words):
        options(**given)

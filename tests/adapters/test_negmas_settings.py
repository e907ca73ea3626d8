"""Options of the adapter: where they come from, who wins, and what is refused."""

from __future__ import annotations

import pytest

from resilient_exec import RetryPolicy
from resilient_exec.adapters.negmas import install, options, settings

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
        ("RESILIENT_EXEC_TIMEOUT", "soon", "a number of seconds, more than 0, or None for no limit"),
        ("RESILIENT_EXEC_TIMEOUT", "-1", "a number of seconds, more than 0, or None for no limit"),
        ("RESILIENT_EXEC_TIMEOUT", "nan", "a number of seconds, more than 0, or None for no limit"),
        ("RESILIENT_EXEC_MEMORY_LIMIT", "much", 'a number of bytes or a text such as "2GiB", at least 1 MiB, or None'),
        ("RESILIENT_EXEC_MEMORY_LIMIT", "1000", 'a number of bytes or a text such as "2GiB", at least 1 MiB, or None'),
        ("RESILIENT_EXEC_WORKERS", "0", "a whole number, 1 or more"),
        ("RESILIENT_EXEC_WORKERS", "1.5", "a whole number, 1 or more"),
        ("RESILIENT_EXEC_WORKERS", "inf", "a whole number, 1 or more"),
        ("RESILIENT_EXEC_RETRIES", "-1", "a whole number of further attempts after a death, 0 or more"),
        ("RESILIENT_EXEC_MARKER_WAIT", "inf", "a finite number of seconds, 0 or more"),
        ("RESILIENT_EXEC_SEED", "-1", "a whole number, 0 or more, or None"),
        ("RESILIENT_EXEC_SEED", "luck", "a whole number, 0 or more, or None"),
        ("RESILIENT_EXEC_START_TIMEOUT", "0", "a finite number of seconds, more than 0"),
    ],
)
def test_a_wrong_variable_is_refused_by_name_value_and_rule(monkeypatch, name, value, rule):
    """At install, and by whoever asks for the options later."""
    monkeypatch.setenv(name, value)
    for ask in (install, settings.current):
        with pytest.raises(ValueError) as caught:
            ask()
        assert str(caught.value) == f"{name}={value!r}: must be {rule}"


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"timeout": 0}, ValueError, "timeout=0: must be a number of seconds, more than 0, or None"),
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

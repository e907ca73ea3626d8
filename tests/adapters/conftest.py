"""Real tournaments, small ones: made once, run again and again."""

from __future__ import annotations

import warnings

import pytest

pytest.importorskip("negmas")

with warnings.catch_warnings():
    # Importing all of negmas and scml says this and that about other libraries.
    warnings.simplefilter("ignore")
    import scml.utils  # noqa: F401

    import resilient_exec.adapters.negmas as adapter
    from resilient_exec.adapters.negmas import installation


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "adapters":
            # negmas warns about pandas, numpy and itself; what we warn of is asked for where it is expected.
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(autouse=True)
def as_imported():
    """Each test begins with what a plain import installs."""
    yield
    if installation._installed.parallel or set(installation._installed.patches) != {"run_tournament", "_run_parallel"}:
        adapter.uninstall()
        adapter.install()

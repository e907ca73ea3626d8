"""Which errors come again however often a start is tried."""

from __future__ import annotations

import pytest

from resilient_exec.model.lasting import is_lasting


@pytest.mark.parametrize(
    ("error", "lasts"),
    [
        (TypeError(), True),
        (ImportError(), True),
        (KeyError(), True),
        (SystemExit(3), True),
        (ConnectionError(), False),
        (FileNotFoundError(), False),
        (UnicodeDecodeError("utf-8", b"", 0, 1, ""), True),
        (MemoryError(), False),
        (RuntimeError(), False),
    ],
)
def test_a_mistake_lasts_and_trouble_from_outside_passes(error, lasts):
    assert is_lasting(error) is lasts

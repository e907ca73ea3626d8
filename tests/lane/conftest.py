"""One lane with its real workers, for each test that asks for it."""

from __future__ import annotations

import pytest
from lane_harness import Harness


@pytest.fixture
def lane():
    """A lane without a worker yet; it is closed when the test is over, whatever became of it."""
    harness = Harness()
    yield harness
    harness.end()


@pytest.fixture
def ready(lane):
    """A lane with an idle worker."""
    lane.start()
    return lane

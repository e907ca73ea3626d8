"""One lane with its real workers, for each test that asks for it."""

from __future__ import annotations

import pytest
from lane_harness import Harness

from resilient_exec.process import orphan_guard


@pytest.fixture(scope="module", autouse=True)
def guarded(request):
    """One guard for a whole module: each lane that comes first would start one, and each that goes last end it."""
    if request.node.name == "test_orphan_guard.py":
        yield
        return
    orphan_guard.hold()
    orphan_guard.watch()
    yield
    orphan_guard.release()


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


@pytest.fixture(scope="module")
def kept():
    """The lane of a module, in a list of one."""
    lanes = [Harness()]
    lanes[0].start()
    yield lanes
    lanes[0].end()


@pytest.fixture
def shared(kept):
    """A lane with an idle worker, shared by those tests of a module that do it no harm."""
    if not kept[0].is_idle():  # the test before has failed
        kept[0].end()
        kept[0] = Harness()
        kept[0].start()
    return kept[0]

"""Programs that take their time: none is called hung, and what they do is said."""

from __future__ import annotations

import os
import sys
import time

import pytest
from healthy import DOING

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.parametrize("name", DOING)
def test_a_program_that_takes_its_time_is_not_called_hung(name, watched):
    text, doing = DOING[name]
    reading, writing = os.pipe()  # a prompt waits at it
    try:
        program = watched(text, stdin=reading)

        def is_told(event):
            return event["event"] in ("active", "quiet") and doing in event["sentence"]

        program.wait_for(is_told, f"word of {doing!r}")
        time.sleep(1.0)  # for a stall that it might be called later
        assert not [event for event in program.events if event["event"] == "stall"], program.err[-4000:]
    finally:
        os.close(reading)
        os.close(writing)

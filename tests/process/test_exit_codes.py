"""What the exit code of a process says about its next start."""

from __future__ import annotations

import signal

import pytest

from resilient_exec.process.exit_codes import is_lasting_end


@pytest.mark.parametrize(
    ("exitcode", "lasts"),
    [
        (None, False),
        (0, True),
        (3, True),
        (-signal.SIGSEGV, True),
        (-signal.SIGABRT, True),
        (-signal.SIGKILL, False),
        (-signal.SIGTERM, False),
        (-signal.SIGINT, False),
    ],
)
def test_who_exits_or_crashes_does_so_again_and_who_is_killed_does_not(exitcode, lasts):
    assert is_lasting_end(exitcode) is lasts

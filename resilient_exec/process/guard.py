"""The program of the guard (:mod:`.orphan_guard`): ``python -I -S guard.py PID STARTED MARK FOLDER``.

It is started with a program's first worker, and imports what it needs a little later, or when that program is dead: a
first result has other uses for the CPU.
"""

import os
import select
import sys

_DOZE = 250  # ms


def doze(pid: int) -> None:
    """Sleep for a moment, or until that process is dead."""
    try:
        death = os.pidfd_open(pid)
    except (AttributeError, OSError):  # there are none here, or it is dead
        return
    poller = select.poll()
    poller.register(death, select.POLLIN)
    poller.poll(_DOZE)
    os.close(death)


if __name__ == "__main__":
    doze(int(sys.argv[1]))
    # -I and -S: there is no site, and no path but the standard library's.
    sys.path.insert(0, os.path.abspath(__file__).rsplit(os.sep, 3)[0])
    from resilient_exec.process.guarding import guard

    guard(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4])

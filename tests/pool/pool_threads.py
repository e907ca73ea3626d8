"""What the tests of thread limits run in workers."""

from __future__ import annotations

import os


def limits():
    """The limits that numerical libraries would find here."""
    return {name: value for name, value in os.environ.items() if name.endswith("_THREADS")}


def threads_of_numpy():
    """The threads of this process when numpy has multiplied."""
    import numpy as np

    np.ones((300, 300)) @ np.ones((300, 300))
    return len(os.listdir("/proc/self/task"))

"""What the tests of seeds run in workers."""

from __future__ import annotations

import os
import signal
import sys

from resilient_exec import task_context


def draw(*_):
    """Two numbers of the task's own: the generator is the same object all the while."""
    return task_context().rng.random(), task_context().rng.random()


def draw_with_numpy(*_):
    import numpy as np

    return int(np.random.default_rng(task_context().seed_sequence).integers(2**63))


def draw_at_last(attempts):
    """Draws in each attempt; only the last one tells."""
    numbers = draw()
    if task_context().attempt < attempts:
        os.kill(os.getpid(), signal.SIGKILL)
    return numbers


def without_numpy():
    numbers = draw()
    sys.modules["numpy.random"] = None
    try:
        return numbers, task_context().seed_sequence
    except ImportError as error:
        return numbers, str(error)


def modules_after_drawing():
    draw()
    return "numpy" in sys.modules


class Key:
    """One that travels by its text where its class is not found."""

    def __init__(self, name):
        self.name = name

    def __hash__(self):
        return hash(self.name)

    def __eq__(self, other):
        return type(other) is Key and other.name == self.name

    def __repr__(self):
        return f"Key({self.name})"

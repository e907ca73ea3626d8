"""Takes the clock out of the worlds of negmas, so that the same worlds are run on a quick and on a slow machine.

`Mechanism.step` draws a random number for each second that passes, and with it all later draws are others.
"""

from __future__ import annotations

import importlib
import random
from typing import Any


class ConstantRandom:
    """Replaces ``random`` in negmas' mechanisms, so that their draws do not depend on the clock."""

    def __getattr__(self, name: str) -> Any:
        return getattr(random, name)

    @staticmethod
    def random() -> float:
        """Always the same."""
        return 0.5


def calm() -> None:
    """Replace it, in this process."""
    importlib.import_module("negmas.mechanisms").random = ConstantRandom()  # type: ignore[attr-defined]

"""The line of the user's program that calls a pool."""

from __future__ import annotations

import sys
import traceback

__all__ = ["callers_line"]


def callers_line() -> str:
    """The line that submits, as in a traceback: the error is raised much later, where somebody asks for the result."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("resilient_exec."):
        frame = frame.f_back
    (line,) = traceback.extract_stack(frame, limit=1)
    return f'File "{line.filename}", line {line.lineno}, in {line.name}: {line.line}'

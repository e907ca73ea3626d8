"""Exit statuses of processes, in words."""

from __future__ import annotations

import signal as _signal

__all__ = ["signal_name"]


def signal_name(exitcode: int | None) -> str | None:
    """Name of the signal for a negative ``exitcode`` (``-9`` is ``"SIGKILL"``), else ``None``."""
    if exitcode is None or exitcode >= 0:
        return None
    try:
        return _signal.Signals(-exitcode).name
    except ValueError:
        return f"signal {-exitcode}"

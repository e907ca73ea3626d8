"""In a worker: an agent is imported and made once, before it plays, and what would keep it from a league is found."""

from __future__ import annotations

import importlib
import pickle
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters.text import plain
from resilient_exec.cli.scml.competitors import Look, look_at

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["place_of", "probe"]


def probe(module_name: str, class_name: str, folder: str) -> Look:
    """For use in a worker: import the class, find it again by its name, make one."""
    import scml.oneshot
    import scml.std  # noqa: F401  it is not the agent's doing that these take seconds

    (found,) = look_at(module_name, [class_name], folder)
    if found.error:
        return found
    kind: Any = getattr(importlib.import_module(module_name), class_name)
    problems, remarks = [], []
    if getattr(sys.modules.get(kind.__module__), kind.__name__, None) is not kind:
        problems.append(
            f"is not picklable: {found.name} is another object than the class; define it under its own name in a module"
        )
    else:
        try:
            pickle.dumps(kind)
        except Exception as error:
            problems.append(f"is not picklable: {plain(f'{type(error).__name__}: {error}')}")
    try:
        one = kind()
    except Exception as error:
        text = plain(f"{type(error).__name__}: {error}".splitlines()[0])
        problems.append(f"cannot be made: {class_name}() raises {text}{place_of(error.__traceback__, kind)}")
    else:
        remarks += _unpicklable_state(one)
    return replace(found, problems=tuple(problems), remarks=tuple(remarks))


def place_of(trace: TracebackType | None, kind: type) -> str:
    """File and line of the innermost frame in the module of ``kind``, in brackets; ``""`` if there is none."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    found = ""
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            found = f" ({file.rpartition('/')[2]}:{trace.tb_lineno})"
        trace = trace.tb_next
    return found


def _unpicklable_state(one: object) -> list[str]:
    from resilient_exec.wire import payload

    try:
        payload.pack_value(one, fresh_locks=False)
    except Exception as error:
        words = plain(str(error).splitlines()[0])
        return [f"keeps what cannot be pickled (locks, files); its worlds run, but cannot be saved: {words}"]
    return []

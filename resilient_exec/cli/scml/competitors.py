"""From the names of competitors to their classes, which are looked at in a worker first.

A module that ends its process, or stops it, when it is imported costs a worker; here it would cost the organiser the
command.  What is not found is looked for: the user means something that is there.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import sys
import time
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters.text import plain
from resilient_exec.cli.parsing import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Look", "Named", "classes_of", "fate_of_import", "look", "look_at", "parse", "refuse", "scml_agents_named"]

_SHOWN = 12  # names in a list of what there is
_FRAME = re.compile(r'File "(?P<file>.+?)", line (?P<line>\d+),? in (?P<function>\S+)')


@dataclass(frozen=True)
class Named:
    """A competitor as it was named.

    Attributes:
        text: the very words.
        module: of its class; ``""``: one of scml's own.
        name: of its class.
    """

    text: str
    module: str
    name: str


@dataclass(frozen=True)
class Look:
    """What was found in a worker behind a name.

    Attributes:
        name: of the type, in full.
        error: what is wrong with it; ``""``: nothing.
        agents: names of the agents of its module, those first that are defined there.
        track: ``std``, ``oneshot``, or ``""`` if its bases do not tell.
        seconds: that the import of its module took.
        problems: what would keep it from playing; only looked for by ``scml check``.
        remarks: what does no harm here.
    """

    name: str = ""
    error: str = ""
    agents: tuple[str, ...] = ()
    track: str = ""
    seconds: float = 0.0
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


# -- names


def parse(text: str) -> Named:
    """What is meant by ``module:Class``, ``module.Class``, ``./folder/module.py:Class`` or ``Class``.

    A file that does not lie below the current folder is found by putting its folder on ``sys.path``.

    Raises:
        CommandError: nothing of these.
    """
    place, colon, name = text.rpartition(":")
    if not colon:
        if text.endswith(".py") or os.sep in text:
            raise CommandError(f"{text!r} is a file: say which class of it plays, {text}:CLASS{_such_as(text)}")
        place, _, name = text.rpartition(".")
    if place.endswith(".py") or os.sep in place:
        place = _module_of_file(text, place)
    if not name.isidentifier() or (place and not all(part.isidentifier() for part in place.split("."))):
        raise CommandError(f"{text!r} names no class: write MODULE:CLASS, such as my_agents:Mine")
    return Named(text, place, name)


def _module_of_file(text: str, place: str) -> str:
    path = Path(place if place.endswith(".py") else f"{place}.py").expanduser().absolute()
    if not path.is_file():
        raise CommandError(f"{text!r}: there is no file {path}")
    path = Path(os.path.normpath(path))
    if path.is_relative_to(Path.cwd()):
        return ".".join(path.relative_to(Path.cwd()).with_suffix("").parts)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    return path.stem


def _such_as(path: str) -> str:
    classes = _classes_in(Path(path))
    return f"; it has {_some(classes)}" if classes else ""


def _classes_in(path: Path) -> list[str]:
    """Names of the classes that are defined in a file, which is read and not run."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, ValueError, SyntaxError, RecursionError):
        return []
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _meant(named: Named, agents: Sequence[str] = ()) -> str:
    """What may be meant, as the end of a message; ``""``: nothing like it is there.

    Args:
        named: what was not found.
        agents: names that its module has.
    """
    here = {
        f"{path.stem}:{name}": name
        for path in sorted(Path.cwd().glob("*.py"))
        for name in _classes_in(path)
        if path.stem.isidentifier()
    }
    candidates = {f"{named.module}:{name}" if named.module else name: name for name in agents}
    close = [whole for whole, name in here.items() if name == named.name and whole not in candidates]
    by_name = {name: whole for whole, name in reversed([*candidates.items(), *here.items()])}
    folded = {name.lower(): name for name in by_name}
    close += [by_name[folded[one]] for one in get_close_matches(named.name.lower(), list(folded), 1, 0.7)]
    if not close and named.module and not agents:
        close = get_close_matches(f"{named.module}:{named.name}", list(here), 1, 0.6)
    close = [one for one in dict.fromkeys(close) if one != named.text]
    return f"; did you mean {' or '.join(close[:2])}?" if close else ""


# -- in a worker


def look_at(module_name: str, class_names: Sequence[str], folder: str) -> list[Look]:
    """For use in a worker: import the module, and tell of each of the classes what it is."""
    if folder not in sys.path:
        sys.path.insert(0, folder)
    began = time.perf_counter()
    try:
        module = importlib.import_module(module_name)
    except BaseException as error:
        is_it = isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}.")
        words = "" if is_it else f"importing {module_name} {_raised(error)}{_where(error, module_name)}"
        return [Look(error=words or f"there is no module {error.name!r}")] * len(class_names)  # type: ignore[attr-defined]
    seconds = time.perf_counter() - began
    agents = _agents_of(module)
    return [replace(_look_at_class(module, name), agents=agents, seconds=seconds) for name in class_names]


def _raised(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"ends the program (sys.exit({'' if error.code is None else repr(error.code)}))"
    text = plain(f"{type(error).__name__}: {error}".splitlines()[0])
    return f"raises {text}"


def _where(error: BaseException, module_name: str) -> str:
    """The line of the module at which it was left."""
    if isinstance(error, SyntaxError):
        return ""  # its words say it
    file = getattr(sys.modules.get(module_name), "__file__", None)
    trace, found = error.__traceback__, ""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name == file or (trace.tb_frame.f_globals.get("__name__") == module_name):
            found = f" ({os.path.basename(name)}:{trace.tb_lineno})"
        trace = trace.tb_next
    return found


def _agents_of(module: Any) -> tuple[str, ...]:
    kinds = [
        (kind.__module__ != module.__name__, name)
        for name, kind in list(vars(module).items())
        if isinstance(kind, type) and is_agent(kind) and not name.startswith("_")
    ]
    return tuple(name for _, name in sorted(kinds))


def _look_at_class(module: Any, name: str) -> Look:
    kind = getattr(module, name, None)
    if not isinstance(kind, type):
        what = "no class" if kind is None else "something that is no class, under the name of"
        return Look(error=f"{module.__name__} has {what} {name!r}")
    if not is_agent(kind):
        return Look(error="is not an agent: it inherits from none of scml's agents (OneShotAgent, StdAgent)")
    return Look(name=f"{kind.__module__}.{kind.__name__}", track=track_of(kind))


def is_agent(kind: type) -> bool:
    """Whether it can play in worlds of scml."""
    from negmas.situated import Agent
    from scml.oneshot import OneShotAgent

    return issubclass(kind, OneShotAgent | Agent)


def track_of(kind: type) -> str:
    """``std``, ``oneshot``, or ``""`` if its bases do not tell."""
    from scml.oneshot import OneShotAgent
    from scml.std import StdAgent

    return "std" if issubclass(kind, StdAgent) else "oneshot" if issubclass(kind, OneShotAgent) else ""


# -- in this process


def look(named: Iterable[Named], start_timeout: float, memory_limit: int | None = None) -> dict[Named, Look]:
    """Look at competitors in a worker; what is wrong with one is in its ``error``, as text for the organiser.

    Args:
        named: those that are not scml's own.
        start_timeout: seconds for the import of a module.
        memory_limit: bytes, for the same.
    """
    from resilient_exec import ResilientPool

    by_module: dict[str, list[Named]] = {}
    for one in named:
        by_module.setdefault(one.module, []).append(one)
    found: dict[Named, Look] = {}
    if not by_module:
        return found
    lanes = min(len(by_module), os.cpu_count() or 1)
    limits: dict[str, Any] = {"timeout": start_timeout, "memory_limit": memory_limit, "retry": 1, "output": "discard"}
    with ResilientPool(lanes, **limits) as pool:
        futures = {
            module: pool.submit(look_at, module, [one.name for one in ones], str(Path.cwd()))
            for module, ones in by_module.items()
        }
        for module, future in futures.items():
            error = future.exception()
            looks = (
                future.result()
                if error is None
                else [Look(error=fate_of_import(module, error))] * len(by_module[module])
            )
            found.update(zip(by_module[module], looks, strict=True))
    return found


def fate_of_import(module: str, error: BaseException) -> str:
    """What the import of a module did to its worker."""
    from resilient_exec.model.errors import MemoryLimitExceeded, TaskTimeout, WorkerDied

    if isinstance(error, TaskTimeout):
        place = _innermost(error.stacks)
        limit = error.dossier.attempts[-1].duration if error.dossier is not None else 0.0
        return f"importing {module} took longer than {limit:.0f} s (--start-timeout){place}"
    if isinstance(error, MemoryLimitExceeded):
        return f"importing {module} took more than the memory limit (--memory-limit)"
    if isinstance(error, WorkerDied):
        how = f"was killed by {error.signal}" if error.signal else f"ended with status {error.exitcode}"
        return f"importing {module} ends the program: the worker that imported it {how}"
    return f"importing {module} failed: {plain(str(error).splitlines()[0])}"


def _innermost(stacks: str) -> str:
    for frame in _FRAME.finditer(stacks):
        if frame["function"] == "<module>":
            return f"; it stood in {os.path.basename(frame['file'])}:{frame['line']}"
    return ""


def refuse(looks: dict[Named, Look]) -> None:
    """Refuse the first competitor with which something is wrong.

    Raises:
        CommandError: says what, and what may be meant.
    """
    for named, found in looks.items():
        if found.error.startswith("is not an agent"):
            raise CommandError(f"{named.module}:{named.name} {found.error}")
        if found.error:
            is_missing = found.error.startswith("there is no module") or " has no class " in found.error
            hint = _meant(named, found.agents) if is_missing else ""
            has = f"; {named.module} has {_some(found.agents)}" if is_missing and found.agents else ""
            raise CommandError(f"competitor {named.text!r}: {found.error}{hint}{has}")


def scml_agents_named(named: Named, track: str) -> type:
    """One of scml's own agents, by its bare name.

    Raises:
        CommandError: scml has no agent of this name; says what may be meant.
    """
    module = importlib.import_module(f"scml.{track}.agents")
    kind = getattr(module, named.name, None)
    if isinstance(kind, type) and is_agent(kind):
        return kind
    agents = _agents_of(module)
    meant = _meant(named, agents)
    raise CommandError(
        f"competitor {named.text!r}: scml has no {track} agent of this name"
        + (meant or f"; it has {_some(agents)}; one of your own is named as MODULE:CLASS")
    )


def classes_of(names: Sequence[Named], track: str) -> list[type]:
    """The classes, here, after they have been looked at."""
    found = []
    for named in names:
        if not named.module:
            found.append(scml_agents_named(named, track))
            continue
        try:
            found.append(getattr(importlib.import_module(named.module), named.name))
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            raise CommandError(
                f"competitor {named.text!r}: its import went well in a worker, and here it {_raised(error)}"
            ) from error
    return list(dict.fromkeys(found))

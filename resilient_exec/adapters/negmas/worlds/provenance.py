"""Stores what a resume needs and negmas' ``params.json`` lacks: functions with their arguments, and the seed.

negmas stores the generator and the score calculator by the bare name of a function.  If they are ``functools.partial``
objects (in scml 0.7 nearly all are: ``partial(anac_std_world_generator, year=2024)``), their arguments are lost, and on
resume each world fails with ``TypeError``, or is scored by other rules.  So the first ``run_tournament`` of a
tournament writes ``resilient/provenance.json`` with the function, positional and keyword arguments of both, and the
seed.  A later call that does not pass them takes them from there.

For a function that cannot be found again by a name (a closure, a lambda, an object) the reason is stored.  To resume
without passing it is then refused before the first world.  The same holds if there is no such file, and the function
that negmas has stored lacks an argument.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters import places
from resilient_exec.adapters.negmas.worlds.seeding import Seeded, check_clock, hash_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping
    from pathlib import Path

__all__ = ["FILE_NAME", "complete", "describe", "of_folder", "rebuild"]

FILE_NAME = "provenance.json"
_ROLES = ("world_generator", "score_calculator")
_PLAIN = (str, int, float, bool, type(None))


class _NotFound(Exception):
    """A function cannot be found again by a name; the message says why."""


def complete(negmas: Any, folder: Path, call: MutableMapping[str, Any], seed: int | None) -> None:
    """Complete the arguments of ``run_tournament`` from the file in the folder, and the file from the arguments.

    Args:
        negmas: the module ``negmas.tournaments.tournaments``.
        folder: of the tournament.
        call: the arguments by name.  Functions that are ``None`` are filled in, and the generator is wrapped if there
            is a seed.
        seed: that of the options.

    Raises:
        ValueError: a function cannot be found again, or worlds that are scored were run with another seed.
    """
    noted = of_folder(folder)
    known = dict(noted)
    assigned = _configurations(negmas, folder)
    params = negmas.load(folder / negmas.PARAMS_FILE) or {}
    for role in _ROLES:
        if call[role] is not None:
            if "lost" in known.get(role, {"lost": ""}):
                known[role] = describe(call[role])
        elif role in known:
            call[role] = _rebuild_or_refuse(role, known[role], folder)
        else:
            call[role] = _from_params(role, params.get(f"{role}_name"), assigned[0][0], folder)
    begun = not call["override_ran_worlds"] and any(folder.glob(f"*/{negmas.RESULTS_FILE}"))
    _choose_seed(known, seed, begun=begun, folder=folder)
    if known != noted:
        _write(folder, known)
    if known["seed"] is not None:
        check_clock()
        call["world_generator"] = Seeded(call["world_generator"], known["seed"], known["hash_seed"])


def of_folder(folder: Path) -> dict[str, Any]:
    """The content of the file in the folder; empty if there is none, or it is incomplete."""
    try:
        known = json.loads(places.to_read(folder, FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(folder: Path, known: Mapping[str, Any]) -> None:
    places.replace(folder, FILE_NAME, json.dumps(known, indent=1) + "\n")


def _configurations(negmas: Any, folder: Path) -> Any:
    """The configurations of all worlds.

    Raises:
        ValueError: the file is incomplete, since the program was ended while it created the tournament.  negmas would
            read the JSON file beside the pickle, in which scml's arrays are strings, and lose every world.
    """
    try:
        assigned = negmas.load(folder / negmas.ASSIGNED_CONFIGS_PICKLE_FILE)
    except Exception:  # an incomplete pickle may raise anything
        assigned = None
    if not assigned:
        raise ValueError(
            f"{negmas.ASSIGNED_CONFIGS_PICKLE_FILE} of the tournament in {folder} is missing or cut short: the "
            "tournament was interrupted while it was created, and no world of it has been run. Remove the folder and "
            "start anew"
        )
    return assigned


def _choose_seed(known: dict[str, Any], seed: int | None, *, begun: bool, folder: Path) -> None:
    before = known.get("seed")
    if begun and "seed" in known and seed not in (None, before):
        raise ValueError(
            f"seed={seed}: the worlds in {folder} that are scored already were run with "
            f"{f'seed={before}' if before is not None else 'no seed'}; use that, or run all of them again with "
            "override_ran_worlds=True"
        )
    seed = before if seed is None else seed
    if seed != before or "hash_seed" not in known:
        known |= {"seed": seed, "hash_seed": None if seed is None else hash_seed(seed)}


# -- functions, by name


def describe(function: Any) -> dict[str, Any]:
    """The JSON description from which :func:`rebuild` makes ``function`` again; ``{"lost": why}`` if it cannot."""
    try:
        return _description(function)
    except _NotFound as error:
        return {"lost": str(error)}


def _description(function: Any) -> dict[str, Any]:
    if isinstance(function, functools.partial):
        arguments = {"args": list(function.args), "keywords": dict(function.keywords)}
        if not _is_plain(arguments):
            raise _NotFound(f"the arguments of {function!r} are not plain values")
        return {**_inner_description(function.func), **arguments}
    name = f"{getattr(function, '__module__', None)}:{getattr(function, '__qualname__', None)}"
    try:
        is_found = _find(name) == function
    except (ImportError, AttributeError, ValueError):
        is_found = False
    if not is_found:
        raise _NotFound(f"{function!r} cannot be found by a name")
    return {"function": name}


def _inner_description(function: Any) -> dict[str, Any]:
    inner = _description(function)
    return inner if inner.keys() == {"function"} else {"function": inner}


def _is_plain(value: Any) -> bool:
    """Whether a value is the same after it was written and read as JSON."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(part) for key, part in value.items())
    return all(map(_is_plain, value)) if isinstance(value, list) else isinstance(value, _PLAIN)


def rebuild(description: Mapping[str, Any]) -> Any:
    """The function of a description.

    Raises:
        ImportError, AttributeError, ValueError: it does not exist any more, or could not be described.
    """
    if "lost" in description:
        raise ValueError(description["lost"])
    inner = description["function"]
    function = rebuild(inner) if isinstance(inner, dict) else _find(inner)
    if "keywords" in description:
        return functools.partial(function, *description["args"], **description["keywords"])
    return function


def _find(name: str) -> Any:
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def _rebuild_or_refuse(role: str, description: Mapping[str, Any], folder: Path) -> Any:
    try:
        return rebuild(description)
    except (ImportError, AttributeError, ValueError, KeyError, TypeError) as error:
        raise _refusal(
            role, folder, f"it was {description.get('function', 'no function of a module')}: {error}"
        ) from error


def _from_params(role: str, name: object, config: Mapping[str, Any], folder: Path) -> Any:
    """The function that negmas has stored by name in ``params.json``.

    Raises:
        ValueError: it cannot be found, or needs further arguments.
    """
    if not isinstance(name, str):
        return None  # negmas raises its own error
    try:
        function = _find(":".join(name.rpartition(".")[::2]))
    except (ImportError, AttributeError, ValueError) as error:
        raise _refusal(role, folder, f"its name is {name}: {error}") from error
    missing = _missing_arguments(function, role, config)
    if missing:
        raise _refusal(role, folder, f"{name} also needs {missing}, which negmas has not stored")
    return function


def _missing_arguments(function: Callable[..., Any], role: str, config: Mapping[str, Any]) -> str:
    """Names of arguments that the function needs and negmas does not pass; ``""``: none, or it cannot be determined."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ""
    # negmas passes the configuration to a generator by keywords, and three arguments to a calculator by position.
    given = set(config) - {"__dir_name"} if role == "world_generator" else set(list(signature.parameters)[:3])
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in signature.parameters.values() if p.kind not in variable and p.default is p.empty]
    return ", ".join(repr(name) for name in needed if name not in given)


def _refusal(role: str, folder: Path, why: str) -> ValueError:
    return ValueError(
        f"the {role} of the tournament in {folder} cannot be found again ({why}), so every world would be lost. Pass "
        f"it: run_tournament(..., {role}=...)"
    )

"""What it takes to go on with a tournament and is not in negmas' ``params.json``: kept beside it.

negmas stores the generator and the score calculator by the bare name of a function.  Where they are
``functools.partial`` objects (in scml 0.7 nearly all are: ``partial(anac_std_world_generator, year=2024)``) the
arguments are lost, and on resume each world ends with ``TypeError``, or is scored by other rules.  So the first
``run_tournament`` that comes through here writes ``resilient-provenance.json``: function, arguments and keywords of
both, and the seed.  A later one that does not name them gets them from there.

What cannot be found again by a name (a closure, a lambda, an object) is written down as such.  Resuming without naming
it is then refused, before the first world, as it is where there is no such file and the function that negmas has
stored lacks an argument.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters.negmas.worlds.seeding import Seeded, check, hash_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping
    from pathlib import Path

__all__ = ["FILE_NAME", "describe", "of_folder", "rebuild", "settle"]

FILE_NAME = "resilient-provenance.json"
_ROLES = ("world_generator", "score_calculator")
_PLAIN = (str, int, float, bool, type(None))


class _Lost(Exception):
    """Something cannot be found again by a name; the text says why."""


def settle(negmas: Any, folder: Path, call: MutableMapping[str, Any], seed: int | None) -> None:
    """Complete the arguments of ``run_tournament`` from the folder, and the folder from them.

    Args:
        negmas: the module ``negmas.tournaments.tournaments``.
        folder: of the tournament.
        call: the arguments by name; those that are missing are filled in, and the generator is wrapped if there is a
            seed.
        seed: as the options have it.

    Raises:
        ValueError: something cannot be found again, or another seed was used for worlds that are scored.
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
            call[role] = _rebuilt(role, known[role], folder)
        else:
            call[role] = _stored(role, params.get(f"{role}_name"), assigned[0][0], folder)
    begun = not call["override_ran_worlds"] and any(folder.glob(f"*/{negmas.RESULTS_FILE}"))
    _settle_seed(known, seed, begun=begun, folder=folder)
    if known != noted:
        _write(folder, known)
    if known["seed"] is not None:
        check()
        call["world_generator"] = Seeded(call["world_generator"], known["seed"], known["hash_seed"])


def of_folder(folder: Path) -> dict[str, Any]:
    """What the file in the folder says; nothing, if there is none or it was cut short."""
    try:
        known = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(folder: Path, known: Mapping[str, Any]) -> None:
    draft = folder / f"{FILE_NAME}.tmp"
    draft.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    draft.replace(folder / FILE_NAME)


def _configurations(negmas: Any, folder: Path) -> Any:
    """Those of all worlds.  Creating a tournament takes a while, and may have been cut short.

    negmas would go on with the JSON beside the pickle, in which scml's arrays are strings, and lose every world.
    """
    try:
        assigned = negmas.load(folder / negmas.ASSIGNED_CONFIGS_PICKLE_FILE)
    except Exception:  # whatever a pickle that ends in the middle leads to
        assigned = None
    if not assigned:
        raise ValueError(
            f"{negmas.ASSIGNED_CONFIGS_PICKLE_FILE} of the tournament in {folder} is missing or cut short: the "
            "tournament was interrupted while it was created, and no world of it has been run. Remove the folder and "
            "start anew"
        )
    return assigned


def _settle_seed(known: dict[str, Any], seed: int | None, *, begun: bool, folder: Path) -> None:
    before = known.get("seed")
    if begun and "seed" in known and seed not in (None, before):
        raise ValueError(
            f"seed={seed}: the worlds in {folder} that are scored already were run with "
            f"{f'seed={before}' if before is not None else 'no seed'}; go on with that, or run all of them again with "
            "override_ran_worlds=True"
        )
    seed = before if seed is None else seed
    if seed != before or "hash_seed" not in known:
        known |= {"seed": seed, "hash_seed": None if seed is None else hash_seed(seed)}


# -- functions, by name


def describe(function: Any) -> dict[str, Any]:
    """What is needed to get ``function`` again; ``{"lost": why}`` if that is not possible."""
    try:
        return _description(function)
    except _Lost as lost:
        return {"lost": str(lost)}


def _description(function: Any) -> dict[str, Any]:
    if isinstance(function, functools.partial):
        arguments = {"args": list(function.args), "keywords": dict(function.keywords)}
        if not _is_plain(arguments):
            raise _Lost(f"the arguments of {function!r} are not plain values")
        return {**_wrapped(function.func), **arguments}
    name = f"{getattr(function, '__module__', None)}:{getattr(function, '__qualname__', None)}"
    try:
        is_found = _find(name) == function
    except (ImportError, AttributeError, ValueError):
        is_found = False
    if not is_found:
        raise _Lost(f"{function!r} cannot be found by a name")
    return {"function": name}


def _wrapped(function: Any) -> dict[str, Any]:
    inner = _description(function)
    return inner if inner.keys() == {"function"} else {"function": inner}


def _is_plain(value: Any) -> bool:
    """Whether JSON gives it back as it was."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(part) for key, part in value.items())
    return all(map(_is_plain, value)) if isinstance(value, list) else isinstance(value, _PLAIN)


def rebuild(description: Mapping[str, Any]) -> Any:
    """The function of a description.

    Raises:
        ImportError, AttributeError, ValueError: it is not there any more, or never was.
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


def _rebuilt(role: str, description: Mapping[str, Any], folder: Path) -> Any:
    try:
        return rebuild(description)
    except (ImportError, AttributeError, ValueError, KeyError, TypeError) as error:
        raise _refusal(
            role, folder, f"it was {description.get('function', 'no function of a module')}: {error}"
        ) from error


def _stored(role: str, name: object, config: Mapping[str, Any], folder: Path) -> Any:
    """What negmas would take, if that can work."""
    if not isinstance(name, str):
        return None  # negmas' own error says so
    try:
        function = _find(":".join(name.rpartition(".")[::2]))
    except (ImportError, AttributeError, ValueError) as error:
        raise _refusal(role, folder, f"its name is {name}: {error}") from error
    missing = _missing_arguments(function, role, config)
    if missing:
        raise _refusal(role, folder, f"{name} also needs {missing}, which negmas has not stored")
    return function


def _missing_arguments(function: Callable[..., Any], role: str, config: Mapping[str, Any]) -> str:
    """Why the function cannot be called as negmas calls it; ``""`` if it can, or nobody can tell."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ""
    # A generator gets the configuration by keywords, a calculator three arguments by position.
    given = set(config) - {"__dir_name"} if role == "world_generator" else set(list(signature.parameters)[:3])
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in signature.parameters.values() if p.kind not in variable and p.default is p.empty]
    return ", ".join(repr(name) for name in needed if name not in given)


def _refusal(role: str, folder: Path, why: str) -> ValueError:
    return ValueError(
        f"the {role} of the tournament in {folder} cannot be found again ({why}). Every world would be lost; so say "
        f"which it is: run_tournament(..., {role}=...)"
    )

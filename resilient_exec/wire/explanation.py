"""Why something cannot travel, in one line: which part of a call or a result, where in it, and what to do about it.

The search for the part (:mod:`culprit`) begins only where pickling has failed.
"""

from __future__ import annotations

from resilient_exec.wire import pickling

TYPE_CHECKING = False
if TYPE_CHECKING:
    import pickle
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from resilient_exec.wire.script import Known

__all__ = ["Rules", "blame", "explain", "reason_of", "text_of", "type_name"]

_LONGEST_TEXT = 1000  # of an error in a line


class Rules:
    """How something is pickled: whether plain locks travel as new ones, and what of ``__main__`` is there already."""

    def __init__(self, fresh_locks: bool = False, script: Known | None = None) -> None:  # noqa: FBT001, FBT002
        self.fresh_locks, self.script = fresh_locks, script

    def as_arguments(self) -> dict[str, Any]:
        """As arguments of :func:`.pickling.dumps` and its like."""
        return {"fresh_locks": self.fresh_locks, "script": self.script}


def blame(
    fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], error: BaseException, rules: Rules
) -> str:
    """Which part of a call cannot be pickled, and why."""
    parts: list[tuple[str, str, object]] = [("the function", "the function", fn)]
    for i, (name, arg) in enumerate(zip(_positional_names(fn, len(args)), args, strict=True)):
        parts.append(
            (f"argument {i + 1} ({name!r})" if name else f"argument {i + 1}", name or f"argument {i + 1}", arg)
        )
    parts += [(f"argument {name!r}", name, arg) for name, arg in kwargs.items()]
    for what, name, part in parts:
        try:
            pickling.dumps_by_value(part, **rules.as_arguments())
        except KeyboardInterrupt:
            raise
        except BaseException as cause:
            why = reason_of(part, name, cause, rules, returned=False)
            return f"{what}, of type {type_name(part)}, cannot be pickled: {why}"
    return f"the call cannot be pickled: {text_of(error)}"


def _positional_names(fn: Callable[..., Any], count: int) -> list[str]:
    """What the function calls its first ``count`` positional arguments; empty texts where that is not known."""
    import inspect

    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except KeyboardInterrupt:
        raise
    except BaseException:  # not known, or a __signature__ of the user's that raises
        parameters = []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [one.name for one in parameters if one.kind in kinds][:count]
    rest = next((one.name for one in parameters if one.kind is inspect.Parameter.VAR_POSITIONAL), "")
    return names + [f"{rest}[{i}]" if rest else "" for i in range(count - len(names))]


def reason_of(part: object, name: str, error: BaseException, rules: Rules, *, returned: bool) -> str:
    """Why ``part``, which the path to the culprit calls ``name``, cannot be pickled; as :func:`explain`."""
    for_locks = "" if rules.fresh_locks else "use fresh_locks=True"
    return explain(
        part,
        name,
        error,
        lambda: pickling.by_value_pickler(rules.fresh_locks, rules.script),
        for_locks=for_locks,
        returned=returned,
    )


def explain(
    part: object,
    name: str,
    error: BaseException,
    pickler: Callable[[], type[pickle.Pickler]],
    *,
    for_locks: str = "",
    returned: bool = False,
) -> str:
    """In one line: what in ``part`` does not pickle, where it is, why, and what to do about it.

    Args:
        part: what does not pickle.
        name: what the path to the culprit begins with.
        error: what pickling ``part`` has raised.
        pickler: gives the class of the pickler that raised it.
        for_locks: what else may be done about a plain lock.
        returned: whether ``part`` comes back from a worker.
    """
    try:
        from resilient_exec.wire import culprit

        if isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError):
            nesting = culprit.find_nesting(part, name, pickler())
            if nesting:
                return f"it is nested too deeply, along {nesting} ({text_of(error)}); {culprit.FLATTEN}"
        found = culprit.find(part, name, pickler())
        if found is None:
            return text_of(error)
        remedy = culprit.remedy(found, part, for_locks=for_locks, returned=returned)
        if found.value is part:
            return f"{text_of(found.error)}{remedy}"
        return f"{found.path} is a {type_name(found.value)} ({text_of(found.error)}){remedy}"
    except KeyboardInterrupt:
        raise
    except BaseException:  # no descriptor left for an import, no stack left for a search
        return text_of(error)


def type_name(value: object) -> str:
    """The full name of its type."""
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def text_of(error: BaseException) -> str:
    """The error in one line."""
    try:
        text = " ".join(f"{type(error).__name__}: {error}".split())
    except BaseException:  # a __str__ of the user's that raises
        return type(error).__name__
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."

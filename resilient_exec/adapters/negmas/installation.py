"""Where this package is put into negmas, and taken out again.

negmas has no registry of backends, and a value of ``parallelism=`` that it does not know falls through every branch
in silence.  So three functions of negmas are replaced by ours, each checked first for the parameters we need:

* ``run_tournament``: turns ``"resilient:0.5"`` into ``"parallel:resilient:0.5"``, which stock code passes on to
* ``_run_parallel``: runs such a call on our pool, and hands any other to the original.
* with ``negotiations=True``, the process pool of the module ``cartesian``, which older and newer versions have under
  different names.

Everybody who said ``from negmas.tournaments import run_tournament`` has the original under a name of their own, so
the first two are replaced in every module that has been imported; modules imported later find ours.  ``uninstall``
goes the same way back: whatever module holds a function of ours gets the original again.  (What was taken
elsewhere than into a module's namespace, into a ``functools.partial`` for example, is not found.)
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import math
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from resilient_exec.adapters.negmas import checks, folder_lock, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["install", "uninstall"]

_OURS = "resilient"
_DASK = ("dist", "distributed", "dask", "d")
_SERIAL = ("none", "serial", "s")
_PROCESSES = ("local", "parallel", "par", "p")
_NEEDED = {
    "run_tournament": (
        *("tournament_path", "world_generator", "score_calculator", "parallelism", "override_ran_worlds"),
    ),
    "_run_parallel": (
        *("parallelism", "verbose", "assigned", "world_generator", "score_calculator", "name", "scores_file"),
        *("tournament_progress_callback", "world_progress_callback", "run_ids", "print_exceptions"),
        *("attempts_path", "total_timeout", "max_attempts"),
    ),
    "get_world_paths": ("tournament_path",),
    "score_adapter": ("scores_data",),
    "_run_id": (),
    "load": (),
}
# These two are called by position.
_ORDERED = {
    "_run_worlds": (
        *("worlds_params", "world_generator", "score_calculator", "world_progress_callback", "dry_run"),
        *("save_world_stats", "override_ran_worlds", "save_progress_every", "attempts_path", "max_attempts", "verbose"),
    ),
    "save_run_results": (
        *("run_id", "score_", "world_stats_", "type_stats_", "agent_stats_", "tournament_progress_callback"),
        *("world_paths", "name", "verbose", "_strt", "attempts_path", "n_world_configs", "i"),
    ),
}


@dataclass
class _Patch:
    """One function of negmas and what stands in for it."""

    original: Any
    stand_in: Any
    home: ModuleType
    everywhere: bool = True

    def apply(self) -> None:
        self._swap(self.original, self.stand_in)

    def revert(self) -> None:
        self._swap(self.stand_in, self.original)

    def _swap(self, old: Any, new: Any) -> None:
        for namespace in _namespaces() if self.everywhere else (vars(self.home),):
            for name, value in list(namespace.items()):
                if value is old:
                    namespace[name] = new


def _namespaces() -> Iterator[dict[str, Any]]:
    # Straight from the slot: asking a lazy module for its __dict__ may make it import half the world.
    slot: Any = vars(ModuleType)["__dict__"]
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType):
            yield slot.__get__(module)


@dataclass
class _Seam:
    patches: dict[str, _Patch] = field(default_factory=dict)
    parallel: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    def add(self, name: str, patch: _Patch) -> None:
        if name not in self.patches:
            self.patches[name] = patch
            patch.apply()


_seam = _Seam()


def install(*, negotiations: bool = False, parallel: bool = False) -> None:
    """Make ``parallelism="resilient"`` work in world tournaments; importing the package does this much.

    Args:
        negotiations: send the process pool of ``cartesian_tournament`` through ours, too.
        parallel: send ``parallelism="parallel"`` (and what negmas takes for it) through ours, too.

    What is installed already stays; calling it again adds what is asked for.

    Raises:
        RuntimeError: this version of negmas lacks something that is needed; says what.
        WrongSetting: a ``RESILIENT_EXEC_*`` variable of the environment has a wrong value.
    """
    settings.from_environment()
    with _seam.lock:
        tournaments = importlib.import_module("negmas.tournaments.tournaments")
        if not _seam.patches:
            _check(tournaments)
        _seam.add("run_tournament", _wrapped(tournaments, "run_tournament", _run_tournament))
        _seam.add("_run_parallel", _wrapped(tournaments, "_run_parallel", _run_parallel))
        _seam.parallel = _seam.parallel or parallel
        if negotiations:
            _install_negotiations()


def uninstall() -> None:
    """Put everything back: each name is again the very object from before."""
    with _seam.lock:
        for patch in _seam.patches.values():
            patch.revert()
        _seam.patches.clear()
        _seam.parallel = False


def _wrapped(module: ModuleType, name: str, body: Callable[..., Any]) -> _Patch:
    original = getattr(module, name)
    signature = inspect.signature(original)

    @functools.wraps(original)
    def stand_in(*args: Any, **kwargs: Any) -> Any:
        patch = _seam.patches.get(name)
        if patch is None or patch.stand_in is not stand_in:  # uninstalled, but somebody kept it
            return original(*args, **kwargs)
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        return body(module, original, call)

    return _Patch(original, stand_in, module)


# -- what negmas has to have


def _check(tournaments: ModuleType) -> None:
    for name, needed in _NEEDED.items():
        have = _parameters(tournaments, name)
        for parameter in needed:
            if parameter not in have:
                _refuse(f"the parameter {parameter!r} of {tournaments.__name__}.{name}")
    for name, needed in _ORDERED.items():
        have = _parameters(tournaments, name)
        if have[: len(needed)] != needed:
            _refuse(f"the parameters {', '.join(needed)} (in this order) of {tournaments.__name__}.{name}")


def _parameters(module: ModuleType, name: str) -> tuple[str, ...]:
    function: Any = getattr(module, name, None)
    if function is None:
        _refuse(f"{module.__name__}.{name}")
    return tuple(inspect.signature(function).parameters)


def _refuse(missing: str) -> NoReturn:
    raise RuntimeError(
        f"resilient_exec does not fit negmas {checks.version('negmas')}: it needs {missing}, which this version does "
        "not have. Versions 0.11 to 0.16 are known to work"
    )


# -- world tournaments


def _run_tournament(tournaments: Any, original: Callable[..., Any], call: inspect.BoundArguments) -> Any:
    from resilient_exec.adapters.negmas.blame import conduct, history  # see _run_parallel
    from resilient_exec.adapters.negmas.report import report
    from resilient_exec.adapters.negmas.worlds import plan

    path = Path(call.arguments["tournament_path"]).expanduser().absolute()
    wanted = call.arguments["parallelism"]
    if wanted is None:
        wanted = (tournaments.load(path / tournaments.PARAMS_FILE) or {}).get("parallelism")
    if wanted in _SERIAL and settings.current().seed is not None:
        return _run_serial(tournaments, original, call, path)
    if not isinstance(wanted, str) or _lanes(wanted) is None:
        return original(*call.args, **call.kwargs)
    checks.check_pandas()
    chosen = settings.current()
    if wanted.startswith(_OURS):
        call.arguments["parallelism"] = f"parallel:{wanted}"
    _settle(tournaments, path, call, chosen.seed)
    before = report.last_report()
    with folder_lock.claim(path, take_over=chosen.take_over):
        if call.arguments["override_ran_worlds"]:
            for world in tournaments.get_world_paths(tournament_path=path):
                (world.parent / tournaments.RESULTS_FILE).unlink(missing_ok=True)
                (world.parent / history.MEASURED).unlink(missing_ok=True)
            (path / history.CONDUCT).unlink(missing_ok=True)
        result = original(*call.args, **call.kwargs)
    if report.last_report() is before:
        params = tournaments.load(path / tournaments.PARAMS_FILE) or {}
        who = plan.competitors_by_folder(tournaments, path)
        health = conduct.of_finished(path, params, who, chosen.step_timeout)
        report.all_scored_before(path, params, who, health)
    return result


def _settle(tournaments: Any, path: Path, call: inspect.BoundArguments, seed: int | None) -> None:
    from resilient_exec.adapters.negmas.worlds import provenance  # see _run_parallel

    provenance.settle(tournaments, path, call.arguments, seed)


def _run_serial(tournaments: Any, original: Callable[..., Any], call: inspect.BoundArguments, path: Path) -> Any:
    """As negmas does, but with the seed that the options have."""
    from resilient_exec.adapters.negmas.worlds import seeding  # see _run_parallel

    _settle(tournaments, path, call, settings.current().seed)
    with seeding.serially(call.arguments["world_generator"]):
        return original(*call.args, **call.kwargs)


def _run_parallel(tournaments: Any, original: Callable[..., Any], call: inspect.BoundArguments) -> Any:
    lanes = _lanes(call.arguments["parallelism"])
    if lanes is None:
        return original(*call.args, **call.kwargs)
    # Not on top: a worker imports this package for its half, and needs neither the pool nor loky.
    from resilient_exec.adapters.negmas.worlds import runner as worlds

    return worlds.run(tournaments, call.arguments, lanes)


def _lanes(parallelism: str) -> int | None:
    """The number of workers that a value of ``parallelism=`` asks for; ``None``: it is not for us.

    Raises:
        ValueError: it is for us, and wrong.
    """
    ours = parallelism.removeprefix("parallel:")
    if ours.startswith(_OURS):
        return _cpus(_fraction(ours))
    if not _seam.parallel or parallelism in _DASK or not parallelism.startswith(_PROCESSES):
        return None
    _, colon, fraction = parallelism.rpartition(":")
    try:
        return _cpus(float(fraction) if colon else 1.0)
    except ValueError:
        raise ValueError(f"parallelism={parallelism!r}: what follows the colon must be a number") from None


def _fraction(ours: str) -> float:
    name, colon, text = ours.partition(":")
    try:
        fraction = float(text) if colon else 1.0
    except ValueError:
        fraction = math.nan
    if name != _OURS or not 0 < fraction <= 1:
        raise ValueError(
            f'parallelism={ours!r}: must be "resilient", or "resilient:" and the fraction of the CPUs to use, more '
            'than 0 and at most 1 ("resilient:0.5"); for a number of workers use options(max_workers=...)'
        )
    return fraction


def _cpus(fraction: float) -> int:
    import loky  # see _run_parallel

    return max(1, int(fraction * loky.cpu_count()))


# -- negotiation tournaments


def _install_negotiations() -> None:
    from resilient_exec.adapters.negmas.negotiations import runner as negotiations  # see _run_parallel

    cartesian: Any = importlib.import_module("negmas.tournaments.neg.simple.cartesian")
    name = "run_isolated_tasks" if hasattr(cartesian, "run_isolated_tasks") else "ProcessPoolExecutor"
    if name in _seam.patches:
        return
    _install_stand_in_for_pool(cartesian, name, negotiations)
    _parameters(cartesian, "cartesian_tournament")
    _seam.add("cartesian_tournament", _wrapped(cartesian, "cartesian_tournament", _cartesian_tournament))
    for parameter in ("s", "partners", "partner_names", "rep"):
        if parameter not in _parameters(cartesian, "run_negotiation"):
            _refuse(f"the parameter {parameter!r} of {cartesian.__name__}.run_negotiation")
    if hasattr(cartesian, "continue_cartesian_tournament"):
        go_on = _wrapped(cartesian, "continue_cartesian_tournament", _continue_cartesian_tournament)
        _seam.add("continue_cartesian_tournament", go_on)
    one = _wrapped(cartesian, "run_negotiation", _run_negotiation)
    one.everywhere = False  # who calls it by another way than a tournament has no seed
    _seam.add("run_negotiation", one)


def _cartesian_tournament(_: Any, original: Callable[..., Any], call: inspect.BoundArguments) -> Any:
    from resilient_exec.adapters.negmas.negotiations import seeding as negotiation_seeds  # see _run_parallel

    is_serial = call.arguments.get("njobs", 0) < 0
    if not is_serial:
        checks.check_plots(call.arguments)
    in_threads = call.arguments.get("executor") == "thread" and not is_serial
    # Where there is a limit of time newer versions send a serial run to one worker, which can be killed.
    lanes = settings.options(max_workers=1) if is_serial else contextlib.nullcontext()
    with lanes, negotiation_seeds.seeded(settings.current().seed, in_threads=in_threads):
        return original(*call.args, **call.kwargs)


def _continue_cartesian_tournament(_: Any, original: Callable[..., Any], call: inspect.BoundArguments) -> Any:
    # Here, since negmas makes None of any exception, and writes its scenarios anew (other ones) before it runs any.
    folder = Path(call.arguments["path"])
    if not any(folder.glob("details.*")):  # else it is complete, and only loaded
        checks.check_begun(folder)
    return original(*call.args, **call.kwargs)


def _run_negotiation(_: Any, original: Callable[..., Any], call: inspect.BoundArguments) -> Any:
    """In this process; in a worker negmas' own function is called."""
    from resilient_exec.adapters.negmas.negotiations import seeding as negotiation_seeds  # see _run_parallel

    seeds = negotiation_seeds.current()
    return original(**call.arguments) if seeds is None else seeds.run_here(original, call.arguments)


def _install_stand_in_for_pool(cartesian: Any, name: str, negotiations: Any) -> None:
    if name == "run_isolated_tasks":
        ours = inspect.signature(negotiations.run_isolated_tasks).parameters
        for parameter in _parameters(cartesian, name):
            if parameter not in ours:
                _refuse(f"{cartesian.__name__}.{name} without the parameter {parameter!r}")
        _seam.add(name, _Patch(getattr(cartesian, name), negotiations.run_isolated_tasks, cartesian, everywhere=False))
        return
    _parameters(cartesian, "failed_run_record")
    code = cartesian.cartesian_tournament.__code__
    if not hasattr(cartesian, name):
        _refuse(f"{cartesian.__name__}.run_isolated_tasks, or an older version's ProcessPoolExecutor")
    if "timeout" not in {*code.co_varnames, *code.co_cellvars}:
        _refuse(f"the variable 'timeout' of {cartesian.__name__}.cartesian_tournament")
    stand_in = functools.partial(negotiations.NegotiationPool, cartesian)
    _seam.add(name, _Patch(getattr(cartesian, name), stand_in, cartesian, everywhere=False))

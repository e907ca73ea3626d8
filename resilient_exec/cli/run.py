"""``resilient-exec run``: a script or module, run as plain Python runs it, with the adapter installed.

What the script can see of it is kept to what it asked for: ``sys.argv``, ``sys.path[0]``, ``__main__`` and its
``__file__``, ``__spec__`` and ``__builtins__`` are as without us, its exceptions and ``sys.exit`` pass through to the
interpreter (which makes the exit status of them, a SIGINT's included), and nothing is printed but one line at the end
of a script with process pools of its own through which nothing of ours went.  Tracebacks begin with the script's own
frames.
"""

from __future__ import annotations

import argparse
import atexit
import builtins
import contextlib
import importlib.util
import io
import os
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters import executors
from resilient_exec.cli.parsing import new_parser
from resilient_exec.cli.pool_options import add_pool_options, pool_arguments, variables
from resilient_exec.pool.options import WrongSetting

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

__all__ = ["add_parser", "run"]


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the subcommand."""
    command = new_parser(
        commands,
        "run",
        title="run a script or module as it is; its parallel tournaments go through the pool",
        usage="[OPTION ...] (SCRIPT.py | -m MODULE) [ARGS ...]",
        description=(
            "Run a Python script or module unchanged.  What it asks of negmas with \n"
            "parallelism='parallel', and its cartesian_tournament, goes through the pool.\n"
            "Exit status, stdout and Ctrl-C are the script's own; so is all that stands\n"
            "behind its name."
        ),
        examples=(
            "resilient-exec run tournament.py --its --own --arguments",
            "resilient-exec run --timeout 5m --memory-limit 2GiB --workers 4 tournament.py",
            "resilient-exec run -m its.module",
            "resilient-exec run --executors --timeout 5m --retries 2 simulate.py",
        ),
    )
    command.add_argument("-m", dest="is_module", action="store_true", help="TARGET is a module, as in python -m")
    command.add_argument("target", metavar="TARGET", help="the script's path, or with -m the module's name")
    command.add_argument("args", nargs=argparse.REMAINDER, metavar="ARGS", help="the script's own arguments")
    command.add_argument(
        "--executors",
        action="store_true",
        help="also put the pool under concurrent.futures.ProcessPoolExecutor and joblib",
    )
    add_pool_options(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Install the adapter, then become the script."""
    _install(arguments)
    _install_executors(arguments)
    _hide_our_frames()
    load = _load_module if arguments.is_module else _load_script
    code, main = load(arguments.target)
    sys.argv = [str(main.__file__) if arguments.is_module else arguments.target, *arguments.args]
    sys.modules["__main__"] = main
    exec(code, main.__dict__)  # noqa: S102  running the user's script is what was asked for


def _install(arguments: argparse.Namespace) -> None:
    # By the environment, so that the options also hold in the script's own threads and child processes.
    os.environ.update(variables(arguments))
    try:
        from resilient_exec.adapters import negmas

        negmas.install(negotiations=True, parallel=True)
    except WrongSetting as error:
        raise _fail(f"resilient-exec: {error}") from None
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "negmas":
            raise
        return  # a script that has no negmas has no tournaments either


def _install_executors(arguments: argparse.Namespace) -> None:
    """Put the pool under the script's executors, or tell at its end that it could have been there."""
    use = executors.Use()
    if arguments.executors:
        executors.put_in_place(pool_arguments(arguments), use)
    else:
        executors.count_stock_pools(use)
    atexit.register(_tell_what_was_not_used, use, has_executors=arguments.executors, program=os.getpid())


def _tell_what_was_not_used(use: executors.Use, *, has_executors: bool, program: int) -> None:
    if os.getpid() != program or sys.stderr is None:
        return  # a child that was forked, and ends as a program does
    report = sys.modules.get("resilient_exec.adapters.negmas.report.report")
    if use.ours or (report is not None and report.last_report() is not None):
        return
    with contextlib.suppress(OSError, ValueError):
        if has_executors:
            sys.stderr.write(
                "resilient-exec: nothing went through the pool: no tournament, executor or joblib was used\n"
            )
        elif use.stock:
            sys.stderr.write(
                "resilient-exec: nothing went through the pool: the script's process pools are the standard library's; "
                "put the resilient pool under them with: resilient-exec run --executors ...\n"
            )


def _fail(text: str) -> SystemExit:
    print(text, file=sys.stderr)
    return SystemExit(2)


def _new_main(spec: ModuleSpec | None, file: str) -> types.ModuleType:
    main = types.ModuleType("__main__")
    main.__dict__.update(__builtins__=builtins, __file__=file, __spec__=spec, __cached__=None, __loader__=None)
    if spec is not None:
        main.__dict__.update(__package__=spec.parent, __loader__=spec.loader, __cached__=spec.cached)
    return main


def _load_script(target: str) -> tuple[types.CodeType, types.ModuleType]:
    path = Path(target)
    if path.is_dir():
        raise _fail(f"resilient-exec: {target!r} is a folder; name a script, or a module with -m")
    try:
        with io.open_code(os.path.abspath(path)) as file:
            source = file.read()
    except OSError as error:
        raise _fail(f"resilient-exec: can't open file {target!r}: {error.strerror}") from error
    _set_path(os.path.dirname(os.path.realpath(path)))
    full = os.path.abspath(path)
    return compile(source, full, "exec", dont_inherit=True), _new_main(None, full)


def _load_module(target: str) -> tuple[types.CodeType, types.ModuleType]:
    _set_path(os.getcwd())
    spec = _find_spec(target)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = _find_spec(f"{target}.__main__")
        if spec is None:
            raise _fail(f"resilient-exec: No module named {target}.__main__; {target!r} is a package")
    code = spec.loader.get_code(spec.name) if spec is not None and hasattr(spec.loader, "get_code") else None  # type: ignore[union-attr]
    if spec is None or code is None:
        raise _fail(f"resilient-exec: No module named {target}")
    return code, _new_main(spec, spec.origin or target)


def _set_path(first: str) -> None:
    if not sys.flags.safe_path:  # with -P Python puts no such entry there, and neither do we
        sys.path[0] = first


def _find_spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        raise _fail(f"resilient-exec: {error}") from error


def _hide_our_frames() -> None:
    """Let the traceback of an exception that ends the script begin with the script."""
    shown = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, _: types.TracebackType | None) -> None:
        chained: BaseException | None = error
        seen: set[int] = set()
        while chained is not None and id(chained) not in seen:
            seen.add(id(chained))
            chained.__traceback__ = _behind_our_frames(chained.__traceback__)
            chained = chained.__cause__ or chained.__context__
        shown(kind, error, error.__traceback__)

    sys.excepthook = show


def _behind_our_frames(trace: types.TracebackType | None) -> types.TracebackType | None:
    theirs, frame = trace, trace
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == __file__:
            theirs = frame.tb_next
        frame = frame.tb_next
    return theirs

"""Scratch directories: made when a task asks for one, gone when its attempt is over, whatever is in them by then.

The directory of an attempt has a name of its own, made of the worker's mark and the attempt's number there; so
threads and children of the task that ask at the same time are given the same one, and the parent, the guard and the
worker can each find what is to be removed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat

__all__ = ["make", "parent_mark", "remove_all", "remove_tree", "tell_where"]

_TOKEN = os.urandom(8).hex()
_ELSEWHERE = "elsewhere"  # behind a mark: a link to the folder where the scratch directories are

_ROUNDS = 100_000  # of moving folders up; each takes one level away


def parent_mark() -> str:
    """What the names of all temporary files of this process begin with, and the marks of its workers.

    What bears it is removed by the guard when this process is killed; a forked child has another.
    """
    return f"RESILIENT_EXEC_WORKER_{os.getpid()}_{_TOKEN}_"


def tell_where(known: str, folder: str, mark: str) -> None:
    """Have :func:`remove_all` find in ``known`` that scratch directories of that mark are in another ``folder``."""
    if folder != known:
        with contextlib.suppress(OSError):
            os.symlink(folder, os.path.join(known, f"{mark}{_ELSEWHERE}"))


def make(folder: str, name: str) -> str:
    """The path of the directory of that name, which is there.

    Raises:
        OSError: it cannot be made.
    """
    path = os.path.join(folder, name)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, stat.S_IRWXU)
    return path


def remove_all(folder: str, mark: str) -> None:
    """Remove everything in ``folder`` whose name begins with ``mark``, and where a link leads to; raises nothing."""
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = os.listdir(folder) if folder and mark else []
    for name in names:
        path = os.path.join(folder, name)
        if name.startswith(mark):
            if name.endswith(_ELSEWHERE):
                with contextlib.suppress(OSError):
                    remove_all(os.readlink(path), name.removesuffix(_ELSEWHERE))
            remove_tree(path)


def remove_tree(path: str) -> None:
    """Remove a folder with all that is in it, also what is write-protected or deep; raises nothing.

    A link is removed, and not what it leads to: a task may have put one in the folder's place.
    """
    import shutil

    with contextlib.suppress(Exception):  # what resists is left
        if not _is_folder(path):
            os.unlink(path)
            return
        with contextlib.suppress(OSError, RecursionError):  # before Python 3.13 it calls itself for each level
            shutil.rmtree(path)
            return
        _flatten(path)
        os.rmdir(path)


def _is_folder(path: str) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def _flatten(top: str) -> None:
    """Empty it by moving what is deep up, level by level: no path grows long, and nothing calls itself."""
    numbers = itertools.count()
    for _ in range(_ROUNDS):
        os.chmod(top, stat.S_IRWXU)
        folders = _clear(top)
        if not folders:
            return
        for one in folders:
            os.chmod(one, stat.S_IRWXU)
            for inner in _clear(one):
                os.chmod(inner, stat.S_IRWXU)  # one that is write-protected cannot be given another parent
                os.rename(inner, os.path.join(top, f".resilient.{next(numbers)}"))
            os.rmdir(one)


def _clear(folder: str) -> list[str]:
    """Remove all files of a folder; the folders in it."""
    with os.scandir(folder) as found:
        entries = list(found)
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.path)
    return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]

"""Tasks that leave to the end of their process what has to be done by then."""

from __future__ import annotations

import atexit
import ctypes
import io
import os
import sys
from pathlib import Path

LEFT_OPEN = []


def register(path, words):
    """Have the words written at the end."""
    atexit.register(_write, path, words)


def register_all(path, *handlers):
    """Have all of them called at the end, the last one first, and then the path written."""
    atexit.register(_write, path, "all were called\n")
    for handler in handlers:
        atexit.register(handler)


def _write(path, words):
    with open(path, "a") as file:
        file.write(words)


def fails():
    raise ValueError("at the end")


def leaves():
    sys.exit(3)


def leave_open(path, words):
    """A text file, a binary one within it, and what was written is in their buffers."""
    file = Path(path).open("w")
    file.write(words)
    binary = Path(f"{path}.binary").open("wb")
    binary.write(words.encode())
    LEFT_OPEN.extend((file, binary))
    return os.path.getsize(path)


def leave_open_in_c(path, words):
    """A file of C's standard library."""
    c = ctypes.CDLL(None)
    c.fopen.restype = ctypes.c_void_p
    file = c.fopen(path.encode(), b"w")
    c.fputs(words.encode(), ctypes.c_void_p(file))
    return os.path.getsize(path)


def leave_open_what_cannot_be_flushed(path, words):
    """Two files of which one is closed beneath its object and one refuses, beside one that is well."""
    beneath = Path(os.devnull).open("w")
    beneath.write("lost")
    os.close(beneath.fileno())

    class Refuses(io.TextIOWrapper):
        def flush(self):
            raise SystemExit(5)

    LEFT_OPEN.extend((beneath, Refuses(Path(os.devnull).open("wb"))))
    return leave_open(path, words)


def use_module(name, words):
    """Write to the file that a preloaded module has opened."""
    sys.modules[name].file.write(words)

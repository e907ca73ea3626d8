"""Tasks that tell what their process was given."""

from __future__ import annotations

import os
import resource
import sys
import time


def environment_and_path():
    return dict(os.environ), list(sys.path)


def limits():
    mask = os.umask(0o22)
    os.umask(mask)
    return (
        resource.getrlimit(resource.RLIMIT_NOFILE),
        resource.getrlimit(resource.RLIMIT_CORE),
        mask,
        os.getpriority(os.PRIO_PROCESS, 0),
        os.sched_getaffinity(0),
        time.tzname,
    )


def flags():
    return sys.flags.optimize, sys.flags.dont_write_bytecode, sys.flags.no_user_site, sys.warnoptions, sys._xoptions


def play(name):
    """What a module tells that has changed ``sys.path`` when it was imported."""
    return __import__(name).play()


def send_numbers(*connections):
    for number, connection in enumerate(connections):
        connection.send(number)


def with_parent():
    return os.getpid(), os.getppid()

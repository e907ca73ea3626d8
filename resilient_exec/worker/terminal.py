"""A worker's process group, and the signals of the terminal: Ctrl-C and Ctrl-Z are the parent's to answer.

A worker is in a process group of its own, with what its tasks start: a task that signals "all my children"
(``os.killpg(0, ...)``, ``kill 0`` in a shell) reaches its own worker and nobody else.

* Not as the group's leader, who may not call ``setsid``: a task may want to.  So a small program leads the group,
  and is gone when this one has joined it; the kernel does not use its number again while the group has a member.
* A background group that reads from the terminal is stopped by SIGTTIN, one that changes its settings (or prints,
  after ``stty tostop``) by SIGTTOU.  Ignored, the one is an ``OSError`` and the other has no effect.
* SIGINT does nothing here.  A handler that does nothing is reset at exec, ``SIG_IGN`` would be inherited: a program
  that a task starts could then not be stopped by SIGINT.
* Ctrl-Z stops the parent's group; the parent's guard (:mod:`resilient_exec.process.orphan_guard`) stops the others.
"""

from __future__ import annotations

import contextlib
import os
import signal

__all__ = ["disregard_interrupts", "leave_group"]

_LEADERS = ("/bin/true", "/usr/bin/true", "/bin/sh")  # each ends at once when it is given these ...
_LEADERS_ARGUMENTS = ("-c", ":")


def leave_group() -> None:
    """Move this process into a process group of its own; where that is not to be had it stays where it is."""
    if not hasattr(os, "setpgid"):
        return
    with contextlib.suppress(OSError):
        if not any(map(_joins, _LEADERS)):
            os.setpgid(0, 0)
    for name in ("SIGTTIN", "SIGTTOU"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)


def _joins(program: str) -> bool:
    """Join a new group that ``program`` leads, and end it."""
    try:
        leader = os.posix_spawn(program, [program, *_LEADERS_ARGUMENTS], {}, setpgroup=0)
    except OSError:  # it is not there, or there is no process to be had
        return False
    try:
        os.setpgid(0, leader)  # as a zombie it still leads
    except OSError:  # SIGCHLD is ignored here, and it was quicker
        return False
    finally:
        with contextlib.suppress(OSError):
            os.kill(leader, signal.SIGKILL)
            os.waitpid(leader, 0)
    return True


def disregard_interrupts() -> None:
    """Have SIGINT do nothing, here and in no program that is started from here; where it is ignored it stays so."""
    if hasattr(signal, "SIGCHLD") and signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a program's way of having no zombies: nor has it exit statuses
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _do_nothing)
        if hasattr(signal, "siginterrupt"):
            signal.siginterrupt(signal.SIGINT, False)  # nor does it end a system call of a C library's


def _do_nothing(*_: object) -> None:
    pass

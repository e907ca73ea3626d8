"""What the tests of forwarded logs run in workers."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time

from resilient_exec import task_context

logger = logging.getLogger("model.step")


class RaisesInStr:
    def __str__(self):
        raise ValueError("no text")


class HangsInReduce:
    """Nothing of a record is ever unpickled where it arrives."""

    def __reduce__(self):
        return time.sleep, (3600,)


def say(text, level=logging.INFO, **extra):
    logger.log(level, "%s", text, extra=extra)
    return text


def say_all():
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logger.log(level, "said")
        logging.getLogger("quiet").log(level, "said")


def say_and_fail():
    try:
        raise ValueError("mine")
    except ValueError:
        logger.exception("it failed")
    return "returned"


def say_odd_things():
    logger.info(*("two %s %s", "arguments"))
    logger.info("%s", RaisesInStr())
    logger.info("with a thing", extra={"thing": HangsInReduce(), "number": 7})
    logger.info("x" * 10**6, extra={f"field{i}": "y" * 10**5 for i in range(20)})
    logger.info("surrogate \udc80 and \n a line, and a null \0")
    return "returned"


def say_in_each_attempt(attempts):
    logger.info("attempt %d", task_context().attempt)
    if task_context().attempt < attempts:
        os.kill(os.getpid(), signal.SIGKILL)


def say_much(count):
    for number in range(count):
        logger.info("%d", number)
    return "returned"


def say_behind_closed_descriptors(path):
    os.closerange(3, 64)
    logger.info("low ones are closed")
    for fd in range(64, 1024):
        try:
            is_ours = os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
        except OSError:
            continue
        if is_ours:
            file = os.open(path, os.O_WRONLY | os.O_CREAT)
            os.dup2(file, fd)
    logger.info("a file has their number")
    sys.stdout.flush()
    os._exit(0)


def say_in_a_child():
    pid = os.fork()
    if not pid:
        logger.info("child")
        os._exit(0)
    os.waitpid(pid, 0)
    logger.info("worker")


def set_level_and_handler(path):
    """An initializer of the user's, behind which records still reach the parent."""
    logging.getLogger("model").addHandler(logging.FileHandler(path))
    logging.getLogger("model.step").setLevel(logging.ERROR)

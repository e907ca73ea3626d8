"""What tasks leave in their worker: what fails others (``POISON``), and what does not (``HARMLESS``)."""

from __future__ import annotations

import _imp
import builtins
import locale
import os
import pickle
import resource
import signal
import sys
import tempfile
import threading
import time
import warnings


def lower_the_recursion_limit():
    sys.setrecursionlimit(60)


def lower_the_address_space():
    resource.setrlimit(resource.RLIMIT_AS, (1 << 20, resource.RLIM_INFINITY))


def lower_the_data():
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 16, resource.RLIM_INFINITY))


def lower_the_descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def lower_the_size_of_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def empty_the_modules():
    sys.modules.clear()


def replace_the_modules():
    sys.modules = {}


def empty_the_path():
    sys.path.clear()
    sys.path_importer_cache.clear()
    sys.meta_path.clear()


def replace_the_path():
    sys.path = ["/nowhere"] * 50


def make_warnings_errors():
    warnings.simplefilter("error")


def remove_builtins():
    del builtins.open, builtins.len, builtins.getattr


def replace_pickle():
    pickle.loads = pickle.dumps = None


def replace_getpid():
    os.getpid = lambda: 7


def empty_the_environment():
    os.environ.clear()


def hold_the_import_lock():
    def hold():
        _imp.acquire_lock()
        held.set()
        time.sleep(1000)

    held = threading.Event()
    threading.Thread(target=hold, daemon=True).start()
    held.wait()


def mask_everything():
    os.umask(0o777)


def remove_the_working_directory():
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    os.rmdir(folder)


def block_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})


def ignore_children():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def switch_seldom():
    sys.setswitchinterval(100)


def lose_the_temporary_folder():
    tempfile.tempdir = "/nowhere"


def use_up_descriptors():
    builtins.kept = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 200), hard))
    try:
        while True:
            builtins.kept.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        while len(builtins.kept) < soft - 20:
            builtins.kept.append(os.open(os.devnull, os.O_RDONLY))


def raise_in_an_audit_hook():
    def hook(event, _):
        if event in ("open", "resilient_exec.attempt_ended"):
            raise RuntimeError("no")

    sys.addaudithook(hook)


def trace_and_raise():
    def trace(*_):
        raise RuntimeError("traced")

    sys.settrace(trace)


def profile_and_raise():
    def trace(*_):
        raise RuntimeError("profiled")

    sys.setprofile(trace)


POISON = [
    lower_the_recursion_limit,
    lower_the_address_space,
    lower_the_data,
    lower_the_descriptors,
    lower_the_size_of_files,
    empty_the_modules,
    replace_the_modules,
    empty_the_path,
    replace_the_path,
    make_warnings_errors,
    remove_builtins,
    replace_pickle,
    replace_getpid,
    empty_the_environment,
    hold_the_import_lock,
    mask_everything,
    remove_the_working_directory,
    block_signals,
    ignore_children,
    switch_seldom,
    lose_the_temporary_folder,
    use_up_descriptors,
    raise_in_an_audit_hook,
]
TRACES = [trace_and_raise, profile_and_raise]


def raise_the_recursion_limit():
    sys.setrecursionlimit(sys.getrecursionlimit() + 1000)


def change_the_folder():
    os.chdir("/")


def set_variables():
    os.environ["SET_BY_A_TASK"] = "1"


def ignore_warnings():
    warnings.simplefilter("ignore")


def make_one_warning_an_error():
    warnings.simplefilter("error", RuntimeWarning)


def mask_others():
    os.umask(0o077)


def set_the_locale():
    locale.setlocale(locale.LC_ALL, "C.UTF-8")


def add_to_the_path():
    sys.path.insert(0, "/somewhere")


def forget_a_module():
    import colorsys

    del colorsys, sys.modules["colorsys"]


def lower_core_files():
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def start_a_thread():
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()


HARMLESS = [
    raise_the_recursion_limit,
    change_the_folder,
    set_variables,
    ignore_warnings,
    make_one_warning_an_error,
    mask_others,
    set_the_locale,
    add_to_the_path,
    forget_a_module,
    lower_core_files,
    start_a_thread,
]


def work(value):
    """What most tasks do: call functions deeply, import, allocate, write and read a file, start a program."""
    import subprocess
    import wave  # noqa: F401  nobody else has imported it

    def deep(left):
        return left and deep(left - 1)

    deep(200)
    warnings.warn("nothing of note", UserWarning, stacklevel=1)
    assert len(bytearray(10 << 20)) == 10 << 20
    with tempfile.TemporaryFile("w+") as file:
        file.write("x" * 10000)
    with open(tempfile.mkstemp()[1], "w") as file:
        file.write("x")
    with open(file.name) as again:
        assert again.read() == "x"
    os.unlink(file.name)
    assert subprocess.run([sys.executable, "-S", "-c", "raise SystemExit(3)"], check=False).returncode == 3
    thread = threading.Thread(target=deep, args=(20,))
    thread.start()
    thread.join()
    assert os.getcwd()
    assert os.environ["PATH"]
    return value

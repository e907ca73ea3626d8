"""Names of the system calls that a waiting thread can be found in, by machine and number."""

from __future__ import annotations

import platform

__all__ = ["name_of"]

_X86_64 = {
    0: "read", 1: "write", 7: "poll", 16: "ioctl", 17: "pread64", 18: "pwrite64", 19: "readv", 20: "writev",
    23: "select", 34: "pause", 35: "nanosleep", 43: "accept", 44: "sendto", 45: "recvfrom", 46: "sendmsg",
    47: "recvmsg", 42: "connect", 61: "wait4", 72: "fcntl", 73: "flock", 74: "fsync", 128: "rt_sigtimedwait",
    130: "rt_sigsuspend", 202: "futex", 230: "clock_nanosleep", 232: "epoll_wait", 247: "waitid", 270: "pselect6",
    271: "ppoll", 281: "epoll_pwait", 288: "accept4", 441: "epoll_pwait2", 257: "openat", 219: "restart_syscall",
}  # fmt: skip
_AARCH64 = {
    63: "read", 64: "write", 29: "ioctl", 65: "readv", 66: "writev", 72: "pselect6", 73: "ppoll", 22: "epoll_pwait",
    98: "futex", 101: "nanosleep", 115: "clock_nanosleep", 95: "waitid", 260: "wait4", 202: "accept", 242: "accept4",
    203: "connect", 206: "sendto", 207: "recvfrom", 211: "sendmsg", 212: "recvmsg", 25: "fcntl", 32: "flock",
    82: "fsync", 133: "rt_sigsuspend", 137: "rt_sigtimedwait",
    441: "epoll_pwait2", 56: "openat", 128: "restart_syscall",
}  # fmt: skip
_NAMES = {"x86_64": _X86_64, "aarch64": _AARCH64}.get(platform.machine(), {})


def name_of(number: int) -> str:
    """The call's name; its number as text where it has none here."""
    return _NAMES.get(number, str(number))

"""Which local sockets belong together: the kernel is asked by netlink (sock_diag), as ``ss -x`` does.

``multiprocessing.Pipe()`` is a pair of sockets.  /proc shows their numbers, and not which is the other end of which.
"""

from __future__ import annotations

import socket
import struct

__all__ = ["peers"]

_SOCK_DIAG = 4  # netlink family
_BY_FAMILY, _DONE = 20, 3  # message types
_REQUEST, _DUMP = 1, 0x300
_SHOW_PEER, _PEER = 4, 2
_HEADER, _MESSAGE = struct.Struct("=IHHII"), struct.Struct("=BBBBIII")


def peers() -> dict[str, str]:
    """Return the other end of each connected local socket, both as in /proc (``socket:[55]``); empty: not known."""
    body = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, _SHOW_PEER, 0xFFFFFFFF, 0xFFFFFFFF)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as asking:
            asking.settimeout(1.0)
            asking.send(_HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, _REQUEST | _DUMP, 1, 0) + body)
            return _read(asking)
    except (OSError, AttributeError, struct.error):
        return {}


def _read(asking: socket.socket) -> dict[str, str]:
    found: dict[str, str] = {}
    while True:
        data = asking.recv(1 << 18)
        at = 0
        while at < len(data):
            size, kind, *_ = _HEADER.unpack_from(data, at)
            if kind != _BY_FAMILY:  # the end, or a refusal
                return found
            inode = _MESSAGE.unpack_from(data, at + _HEADER.size)[4]
            peer = _peer(data[at + _HEADER.size + _MESSAGE.size : at + size])
            if peer:
                found[f"socket:[{inode}]"] = f"socket:[{peer}]"
            at += (size + 3) & ~3


def _peer(attributes: bytes) -> int:
    at = 0
    while at + 4 <= len(attributes):
        size, kind = struct.unpack_from("=HH", attributes, at)
        if kind == _PEER:
            return int(struct.unpack_from("=I", attributes, at + 4)[0])
        at += max(4, (size + 3) & ~3)  # never in place
    return 0

"""Limits on this process that it cannot lift again: for reading what nobody vouches for."""

import ctypes
import os
import resource
import struct
import sys
from pathlib import Path

# The system calls of Landlock, which every process may ask for on Linux from 5.13 on, and the rights that it knows:
# https://docs.kernel.org/userspace-api/landlock.html
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_EXECUTE, _WRITE = 1 << 0, 1 << 1
_CHANGE = sum(1 << bit for bit in range(4, 13))  # remove and make files, folders, links, sockets
_PATH_BENEATH, _NO_NEW_PRIVILEGES = 1, 38


def limit(kind: int, most: int) -> None:
    """Lower a limit of resources, where the platform has it; never raise one."""
    try:
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    except (OSError, ValueError):
        return  # macOS knows some of them by name only


def address_space() -> int:
    """Bytes of addresses that this process has taken; 0 where that cannot be told."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (OSError, ValueError):
        return 0


def write_only_in(folder: Path) -> bool:
    """From now on write nothing outside a folder and start no other program; whether the platform can hold that."""
    if not sys.platform.startswith("linux"):
        return False
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    rights = struct.pack("Q", _EXECUTE | _WRITE | _CHANGE)
    rules = call(_CREATE, rights, ctypes.c_size_t(len(rights)), 0)
    if rules < 0:
        return False
    place = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", _WRITE | _CHANGE, place)
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        held = (
            call(_ADD, rules, _PATH_BENEATH, rule, 0) == 0
            and prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
            and call(_RESTRICT, rules, 0) == 0
        )
        return bool(held)
    finally:
        os.close(place)
        os.close(rules)

"""The network, shut for good to a process and all it starts, as far as this system lets its users do so."""

import _socket
import contextlib
import ctypes
import errno
import fcntl
import ipaddress
import os
import platform
import socket
import struct
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from ablate.core.errors import NetworkIsOff

Way: TypeAlias = Literal["namespace", "filter", "switches"]
"""namespace: no interface but a loopback of its own; filter: the kernel makes no socket but of this machine's own
families; switches: the libraries were told not to ask, and Python's own sockets refuse."""

WHY: Final = "the network is off in this stage: only a fetch may use it"
CLONE_NEWUSER: Final = 0x1000_0000
CLONE_NEWNET: Final = 0x4000_0000
_IFF_UP_AND_RUNNING: Final = 0x41
_SIOCSIFFLAGS: Final = 0x8914
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_SECCOMP: Final = 22


def shut(*, needs_loopback: bool = False) -> Way:
    """Ends this process's ways to the network; must be called before it has a second thread. -> how.

    `needs_loopback`: for what talks with its own forks by this machine's addresses, which the filter refuses too.
    """
    ways = [way for way in _from(possible()) if not (needs_loopback and way == "filter")]
    way: Way = next(filter(_does, ways), "switches")
    _shut_python(is_loopback_ours=way == "namespace")
    return way


@cache
def possible() -> Way:
    """-> how the network would be shut here, found out in a process of its own, once for this one and its forks."""
    return next((way for way, shutting in _SHUTTING.items() if _is_fit(shutting)), "switches")


def _from(first: Way) -> list[Way]:
    """-> a way and those that come after it: there may be no namespaces left since it was tried."""
    ways = list(_SHUTTING)
    return ways[ways.index(first) :] if first in ways else []


def _does(way: Way) -> bool:
    try:
        _SHUTTING[way]()
    except OSError:
        return False
    return True


def _is_fit(shutting: Callable[[], None]) -> bool:
    """Whether a child that shuts its network has none then, and is itself as before: there is no way back."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    code = 1
    with contextlib.suppress(BaseException):
        before = os.getuid(), os.getgid(), os.getpid()
        shutting()
        code = 0 if _is_off() and before == (os.getuid(), os.getgid(), os.getpid()) else 1
    os._exit(code)


def _is_off() -> bool:
    """Whether nothing outside can be reached; a datagram's address is chosen without sending one."""
    try:
        probe = _socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        probe.connect(("192.0.2.1", 9))
    except OSError:
        return True
    return False


# a namespace


def _leave_network() -> None:
    """As root into a namespace of networks alone; else with one of users, in which we are who we are."""
    if _unshare(CLONE_NEWNET):
        _raise_loopback()
        return
    user, group = os.getuid(), os.getgid()
    if not _unshare(CLONE_NEWUSER | CLONE_NEWNET):
        raise OSError("no namespace of one's own is allowed here")
    # in this order: who may not change groups may name one's own
    for name, line in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        Path(f"/proc/self/{name}").write_text(line)
    _raise_loopback()


def _unshare(flags: int) -> bool:
    return bool(ctypes.CDLL(None, use_errno=True).unshare(flags) == 0)


def _raise_loopback() -> None:
    """For libraries that talk with themselves."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP_AND_RUNNING))


# a filter of system calls


class _Calls(NamedTuple):
    """Of an architecture: its number for the kernel, and those of the calls that are filtered."""

    audit: int
    socket: int
    io_uring_setup: int = 425
    """Rings make sockets too."""


_ARCHITECTURES: Final = {"x86_64": _Calls(0xC000003E, 41), "aarch64": _Calls(0xC00000B7, 198)}
_X32: Final = 0x4000_0000
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _DENY = 0x7FFF_0000, 0x0005_0000 | 1  # EPERM
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_LOCAL: Final = (socket.AF_UNIX, 16)
"""Families of sockets that stay: this machine's own, and netlink, by which the kernel tells of itself."""


def _filter_sockets() -> None:
    """Has the kernel refuse sockets of other families, in this process and whatever it becomes or starts."""
    calls = _ARCHITECTURES.get(platform.machine())
    if calls is None:
        raise OSError(f"the numbers of system calls on {platform.machine()} are not known here")
    code = b"".join(struct.pack("HBBI", *line) for line in _program(calls))
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_PR_SET_SECCOMP, 2, program, 0, 0):
        raise OSError(ctypes.get_errno(), "no filter of system calls is allowed here")


def _program(calls: _Calls) -> list[tuple[int, int, int, int]]:
    """-> lines of (operation, lines to skip if true, if false, value)."""
    return [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 0, 8, calls.audit),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 6, 0, _X32),
        (_EQUAL, 5, 0, calls.io_uring_setup),
        (_EQUAL, 0, 3, calls.socket),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_EQUAL, 1, 0, _LOCAL[0]),
        (_EQUAL, 0, 1, _LOCAL[1]),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _DENY),
    ]


_SHUTTING: Final[dict[Way, Callable[[], None]]] = {"namespace": _leave_network, "filter": _filter_sockets}


# Python's own sockets: what fails there is told by its right name, and asks no name server by a service of this machine


def _shut_python(*, is_loopback_ours: bool) -> None:
    """Has every library in Python that connects, sends or asks for a name hear why it cannot."""
    for name in ("connect", "connect_ex", "sendto"):
        setattr(socket.socket, name, _refusing(getattr(_socket.socket, name), is_loopback_ours=is_loopback_ours))
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr"):
        setattr(socket, name, _asking_nobody(getattr(_socket, name, None) or getattr(socket, name)))


def _refusing(call: Callable[..., Any], *, is_loopback_ours: bool) -> Callable[..., Any]:
    @wraps(call)
    def refused(self: socket.socket, *arguments: Any) -> Any:
        address = arguments[-1] if arguments else None
        is_far = self.family not in _LOCAL and not (is_loopback_ours and _is_loopback(address))
        if is_far:
            raise NetworkIsOff(errno.ENETUNREACH, f"{WHY}; {_shown(address)} was wanted")
        return call(self, *arguments)

    return refused


def _asking_nobody(call: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(call)
    def refused(host: Any = None, *arguments: Any, **named: Any) -> Any:
        name = host.decode(errors="replace") if isinstance(host, bytes) else host
        if name and name not in ("localhost", socket.gethostname()) and not _is_address(str(name)):
            raise NetworkIsOff(errno.ENETUNREACH, f"{WHY}; the address of {name} was wanted")
        return call(host, *arguments, **named)

    return refused


def _is_loopback(address: Any) -> bool:
    host = str(address[0]) if isinstance(address, tuple) and address else ""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host.partition("%")[0]).is_loopback)


def _is_address(name: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name.partition("%")[0])
        return True
    return False


def _shown(address: Any) -> str:
    return ":".join(map(str, address[:2])) if isinstance(address, tuple) else str(address)

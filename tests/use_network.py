"""While tests run, nothing in this process reaches another machine."""

from __future__ import annotations

import ipaddress
import sys

EVENTS = ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname")


def refuse_all_but_loopback() -> None:
    """From now on, an address that is not this machine's raises ConnectionRefusedError."""
    sys.addaudithook(_refuse)


def _refuse(event: str, given: tuple) -> None:
    if event not in EVENTS:
        return
    # (socket, address) or (host, …); an address is (host, port, …), or a path.
    address = given[1] if event in ("socket.connect", "socket.sendto") else given[0]
    host = address[0] if isinstance(address, tuple) else address
    if isinstance(address, tuple) or event.startswith("socket.get"):
        _must_be_here(host)


def _must_be_here(host: str | bytes | None) -> None:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return
    try:
        is_here = ipaddress.ip_address(name).is_loopback or name == "0.0.0.0"
    except ValueError:
        is_here = False
    if not is_here:
        raise ConnectionRefusedError(f"A test asks for {name}: tests reach loopback alone.")

"""The connection to a Ray cluster, or a Ray of this machine for as long as a job lasts."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

from faceattr.inference.pipeline import count_workers
from faceattr.progress import suppress_stderr

CONNECT_SECONDS = 5.0
LOOPBACK = "127.0.0.1"
OBJECTS = 256 << 20  # bytes of Ray's store on this machine: names and reports, no pictures


@contextlib.contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """A connection to Ray, to this machine's own without an address; ValueError without a Ray."""
    with _own_sigterm():
        # What Ray says of itself is for those who run clusters.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        with _on_loopback() if address is None else contextlib.nullcontext():
            import ray

            is_ours = not ray.is_initialized()
            if is_ours:
                _connect(address)
    try:
        yield
    finally:
        if is_ours:
            ray.shutdown()


def _connect(address: str | None) -> None:
    import ray
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    how: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        how |= {"num_cpus": count_workers(), "object_store_memory": OBJECTS}
        how |= {"include_dashboard": False, "_node_ip_address": LOOPBACK}
    try:
        with suppress_stderr():
            ray.init(address, **how)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")[:300]
        place = address or "this machine"
        raise ValueError(f"There is no connection to Ray at {place}: {reason}.") from None


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """A Ray that starts meanwhile is reached from this machine alone: it asks for no password."""
    name = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # the name is Ray's, the effect is on Linux as well
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def checked_address(address: str | None) -> str | None:
    """Where Ray is, None for nowhere yet; ValueError where nobody answers."""
    address = address or os.environ.get("RAY_ADDRESS") or None
    host, _, port = (address or "").rpartition(":")
    if address in (None, "auto", "local"):
        return None if address == "local" else address
    if "://" in address or not port.isdigit():
        raise ValueError(
            "A Ray is reached as auto, on one of its machines, or as host:port of its head. "
            f"Received: {address}"
        )
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise ValueError(
            f"No Ray answers at {address} ({error.strerror or error}): `ray start --head` starts "
            "one, `ray status` tells its address."
        ) from None
    return address


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray takes SIGTERM for itself when it is imported, and when it connects."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)

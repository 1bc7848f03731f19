"""HTTP as uvicorn speaks it, but nobody may take for ever to say what they want."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE = 15.0  # seconds in which a connection begins a request; at most twice as many


class BoundedProtocol(H11Protocol):
    """Closes a connection whose next request does not begin; bodies have a limit of their own."""

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        self._watch(transport)

    def _watch(self, transport: asyncio.Transport) -> None:
        self.loop.call_later(PATIENCE, self._check, transport, self.cycle)

    def _check(self, transport: asyncio.Transport, before) -> None:
        is_idle = self.cycle is None or self.cycle.response_complete
        if transport.is_closing():
            return
        if is_idle and self.cycle is before:
            transport.close()
        else:
            self._watch(transport)

"""Who may ask the server, and what browsers may do with its answers."""

import ipaddress
import urllib.parse
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Scripts, styles and pictures of this server alone; nothing may frame the page.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """ASGI middleware before all others.

    Other web pages can neither read nor ask: a request must name this server by an address or by a
    name it is known by (a foreign name that was rebound to this address is refused), and where a
    browser says from which page a request comes, it must be one of this server. Bodies over the
    limit are refused, by what they declare or when they turn out to be longer.
    """

    def __init__(self, app: ASGIApp, *, names: Iterable[str], body_bytes: int):
        """Answers to `names` beside addresses and localhost; bodies have at most `body_bytes`."""
        self._app = app
        self._names = {"localhost", *(name.lower() for name in names)}
        self._body_bytes = body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        refusal = self._refusal(headers)
        if refusal is not None:
            status, text = refusal
            return await JSONResponse({"error": text}, status)(scope, receive, marked)
        await self._app(scope, self._counted(receive), marked)

    def _refusal(self, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not self._known(host):
            return 403, "this server is not known by that name; start it with --allow-host=NAME"
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return 403, "requests of other web pages are refused"
        declared = headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > self._body_bytes:
            return 413, self._too_large()
        return None

    def _known(self, host: str) -> bool:
        try:
            name = urllib.parse.urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return True

    def _too_large(self) -> str:
        return f"the request is larger than {self._body_bytes / 2**20:.0f} MiB; send less"

    def _counted(self, receive: Receive) -> Receive:
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._body_bytes:
                raise HTTPException(413, self._too_large())
            return message

        return limited

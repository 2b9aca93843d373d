"""Requests wait for their turn, few at a time and not for ever."""

import asyncio

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cmtl_jax.serve.lane import FullError, Lane, StoppedError


class Turns:
    """ASGI middleware: places before bodies are read, and an end to every request."""

    def __init__(self, app: ASGIApp, *, lane: Lane, path: str, seconds: float):
        """POST requests to `path` take a place in the lane; any request gets so many seconds."""
        self._app = app
        self._lane = lane
        self._path = path
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begun = False

        async def marked(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        async def refuse(status: int, text: str, **headers: str) -> None:
            await JSONResponse({"error": text}, status, headers)(scope, receive, send)

        async def answer() -> None:
            async with asyncio.timeout(self._seconds):
                await self._app(scope, receive, marked)

        try:
            if scope["method"] == "POST" and scope["path"] == self._path:
                with self._lane.place():
                    await answer()
            else:
                await answer()
        except FullError as error:
            await refuse(503, str(error), **{"Retry-After": "2"})
        except asyncio.CancelledError:  # the server has waited long enough for this request
            if begun:
                raise
            await refuse(503, str(StoppedError()))
        except TimeoutError:
            if begun:
                raise
            await refuse(504, f"not done within {self._seconds:g} s; send a smaller picture")

"""Work that is done one piece at a time, while few others wait."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import TypeVar

T = TypeVar("T")


class FullError(Exception):
    """No place is left to wait."""

    def __init__(self):
        super().__init__("other pictures are being counted; try again")


class StoppedError(Exception):
    """Nothing is worked on any more."""

    def __init__(self):
        super().__init__("the server is stopping; try again later")


class Lane:
    """A thread of its own and a bounded queue in front of it; used from one event loop."""

    def __init__(self, waiting: int):
        """One piece of work at a time and so many `waiting`."""
        self._executor = futures.ThreadPoolExecutor(1)
        self._places = waiting + 1
        self._taken = 0
        self._busy = self._closed = False
        self._asked: set[asyncio.Future] = set()

    @property
    def busy(self) -> bool:
        """Whether a piece of work is running, be it one that nobody waits for any more."""
        return self._busy

    @property
    def taken(self) -> int:
        """Places taken: what is running and what waits."""
        return self._taken

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place in the queue, taken before what is to be worked on takes memory.

        Raises:
            FullError: all are taken.
        """
        if self._taken >= self._places:
            raise FullError
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def run(self, function: Callable[..., T], *arguments) -> T:
        """What the function gives. Work whose caller is cancelled is not begun any more.

        Raises:
            StoppedError: the lane was closed before that.
        """

        def work() -> T:
            self._busy = True
            try:
                return function(*arguments)
            finally:
                self._busy = False

        if self._closed:
            raise StoppedError
        answer = asyncio.get_running_loop().run_in_executor(self._executor, work)
        self._asked.add(answer)
        try:
            return await answer
        except asyncio.CancelledError:
            if self._closed:
                raise StoppedError from None
            raise
        finally:
            self._asked.discard(answer)

    def close(self) -> None:
        """Begins nothing more, and lets nobody wait for what is running."""
        self._closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)
        for answer in self._asked:
            answer.cancel()

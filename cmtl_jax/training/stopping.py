"""Clean stops: SIGTERM (a machine taken away) and Ctrl-C save and end the run."""

import os
import signal
import threading

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Remembers that someone asked the run to stop; a second signal ends it at once.

    With several processes SIGTERM is left to jax.distributed, through which all processes agree on
    the step to stop at, and Ctrl-C is passed on as SIGTERM.
    """

    def __init__(self, *, several_processes: bool = False):
        self.signal: int | None = None
        self._several = several_processes
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT,) if self._several else _SIGNALS:
                self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _frame) -> None:
        if self.signal is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.signal = number
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)

    @property
    def exit_status(self) -> int:
        """What a shell expects of a process that a signal ended."""
        return 128 + (self.signal or signal.SIGTERM)

"""Being told to stop: turned into an exception where there is something to clean up."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, NoReturn

_POLITE: Final = (signal.SIGTERM, signal.SIGHUP)


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived. Not an `Exception`, so that no handler of errors swallows it.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        """Keeps the signal's number."""
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def termination_raises() -> Iterator[None]:
    """While the block runs, SIGTERM and SIGHUP raise `Terminated`, as Ctrl-C raises its own."""

    def stop(number: int, _: FrameType | None) -> NoReturn:
        raise Terminated(number)

    with _handling(_POLITE, stop):
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """While the block runs, Ctrl-C and polite signals do nothing: cleaning up comes first."""
    # A handler and not SIG_IGN, which the commands that clean up would inherit.
    with _handling((signal.SIGINT, *_POLITE), lambda _, __: None):
        yield


@contextmanager
def _handling(
    numbers: tuple[signal.Signals, ...], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread can set handlers, and only it is interrupted.
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)

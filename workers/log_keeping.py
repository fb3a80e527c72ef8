"""Copies what a process writes into the artifact storage, while it writes and when it has ended."""

import logging
import os
import threading
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Final, Self

from search_core.storage import Storage, StorageError
from store.artifacts import ArtifactFolder

_LOG = logging.getLogger(__name__)

_EVERY_SECONDS: Final = 3.0
_LARGEST: Final = 4 * 2**20
"""Bytes of a log that are kept; of a longer one the last."""


class LogKeeper:
    """Keeps a copy of one log, which another process or this one appends to.

    A storage that is away costs a line in the log, and the copy is made up for when it is back: a
    log is never a reason to stop.

    Args:
        source: A descriptor of what is written to, open for reading.
        folder: Where the copies go.
        names: What they are called there: stacked trials share a process, and what it writes.
        secrets: Never copied; stars stand in their place.
        continues: Whether a copy that is there already is gone on with, and not replaced.
        each_round: Called before each copy.
    """

    def __init__(
        self,
        source: int,
        folder: ArtifactFolder,
        names: Sequence[str],
        *,
        secrets: Collection[str] = (),
        continues: bool = False,
        each_round: Callable[[], None] | None = None,
    ) -> None:
        self._source = source
        self._folder = folder
        self._names = names
        # The longest first: one may be a part of another.
        self._secrets = [each.encode() for each in sorted(secrets, key=len, reverse=True)]
        self._before: dict[str, bytes] = {} if continues else dict.fromkeys(names, b"")
        self._each_round = each_round
        self._storage: Storage | None = None
        self._copied = -1
        self._is_away = False
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-keeper", daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Copies every few seconds from now on, in a thread, while there is something new."""
        self._thread.start()

    def close(self, timeout: float = 10.0) -> None:
        """Copies what is new, and stops.

        Args:
            timeout: Seconds to wait at most for a storage that is away.
        """
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def keep(self) -> None:
        """Copies what is new, now and in this thread; what goes wrong is logged."""
        with self._lock:
            if self._each_round is not None:
                self._each_round()
            size = os.fstat(self._source).st_size
            if size == self._copied:
                return
            try:
                self._copy(size)
            except StorageError as error:
                if not self._is_away:
                    _LOG.warning("this log is not kept for now: %s", error)
                self._is_away = True
            else:
                self._copied = size
                self._is_away = False

    def _run(self) -> None:
        closing = False
        while not closing:
            closing = self._closing.wait(_EVERY_SECONDS)
            try:
                self.keep()
            except Exception:
                _LOG.exception("this log could not be kept")

    def _copy(self, size: int) -> None:
        if self._storage is None:
            self._storage = self._folder.open()
        first = max(0, size - _LARGEST)
        written = os.pread(self._source, size - first, first)
        for name in self._names:
            if name not in self._before:
                self._before[name] = _read(self._storage, name)
            content = self._before[name] + written
            for secret in self._secrets:
                content = content.replace(secret, b"***")
            num_left_out = first + max(0, len(content) - _LARGEST)
            if num_left_out:
                content = (
                    b"[%d bytes before this are not kept]\n" % num_left_out + content[-_LARGEST:]
                )
            self._storage.write(name, content)


def _read(storage: Storage, name: str) -> bytes:
    try:
        return storage.read(name)
    except FileNotFoundError:
        return b""

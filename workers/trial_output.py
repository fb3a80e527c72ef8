"""What a trial's process writes on its node, kept in the artifact storage."""

import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from typing import Final

from store.artifacts import ArtifactFolder
from workers import secrets
from workers.log_keeping import LogKeeper

FORMAT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"

_STREAMS: Final = (1, 2)


class TrialOutput:
    """Takes a process's standard output and error, Python's and everybody else's in it.

    They go to a file of the node, from which they are copied into the storage and to where they
    went before, which in a Ray worker is the runner's log. A file never fills up as a pipe does
    whose reader is busy, and has no name: whatever kills the process, nothing stays on the node.

    Args:
        folder: Where the logs of the search are.
        names: What this one is called there, once for each trial of the process.
    """

    def __init__(self, folder: ArtifactFolder, names: Sequence[str]) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `close`)
        self._forwarded = 0
        _flush()
        self._originals = [os.dup(stream) for stream in _STREAMS]
        for stream in _STREAMS:
            os.dup2(self._file.fileno(), stream)
        self._keeper = LogKeeper(
            self._file.fileno(),
            folder,
            names,
            secrets=secrets.known(folder.root),
            continues=True,
            each_round=self._forward,
        )
        self._keeper.start()

    def keep(self) -> None:
        """Copies what was written so far, now."""
        _flush()
        self._keeper.keep()

    def close(self) -> None:
        """Copies the rest and gives the streams back."""
        _flush()
        self._keeper.close()
        for stream, original in zip(_STREAMS, self._originals, strict=True):
            os.dup2(original, stream)
            os.close(original)

    def _forward(self) -> None:
        size = os.fstat(self._file.fileno()).st_size
        while self._forwarded < size:
            piece = os.pread(
                self._file.fileno(), min(size - self._forwarded, 2**16), self._forwarded
            )
            # Which of the two it came by, nobody knows any more.
            _write(self._originals[-1], piece)
            self._forwarded += len(piece)


def log_to_stderr() -> None:
    """Makes this process log what it does, unless it does so already."""
    logging.basicConfig(level=logging.INFO, format=FORMAT)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def _write(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]

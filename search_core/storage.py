"""Where checkpoints and logs are kept: the seam, and the folder of a file system.

A storage holds files by name. A file is there whole or not at all, whoever writes beside us and
whatever dies meanwhile. `store.artifacts` has the storage of an object store.
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from uuid import uuid4

_PARTIAL: Final = ".partial"
_ABANDONED_SECONDS: Final = 24 * 60 * 60


@dataclass(frozen=True)
class StoredFile:
    """A file of a storage.

    Attributes:
        name: Its name, without a folder.
        size: Bytes.
        modified_ns: When it was written, in nanoseconds since the epoch, by the storage's clock.
    """

    name: str
    size: int
    modified_ns: int


class StorageError(OSError):
    """The storage is full, gone or refuses us; the message says which one, and what it said."""


class Storage(Protocol):
    """Files by name, in one folder.

    Guarantees: `write` publishes a file whole or raises and leaves what was there before; what it
    has written survives a crash of the writer; `list` and `read` see it from then on.
    """

    @property
    def where(self) -> str:
        """The folder for people, without secrets."""

    def list(self) -> Sequence[StoredFile]:
        """All files, in no order; none where the folder does not exist yet.

        Raises:
            StorageError: The storage does not answer.
        """

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            FileNotFoundError: There is no such file.
            StorageError: The storage does not answer.
        """

    def write(self, name: str, content: bytes | memoryview) -> None:
        """Writes a file whole, in place of an older one of that name.

        Raises:
            StorageError: It cannot be written; what was there before still is.
        """

    def delete(self, name: str) -> None:
        """Removes a file; one that is gone already is no error.

        Raises:
            StorageError: The storage does not answer.
        """


class Folder:
    """The storage in a folder of a file system: temporary name, fsync, rename, fsync.

    Args:
        path: The folder; made on the first write.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def where(self) -> str:
        """See `Storage`."""
        return str(self.path)

    def list(self) -> Sequence[StoredFile]:
        """See `Storage`."""
        found = []
        try:
            for file in self._files():
                try:
                    status = file.stat()
                except FileNotFoundError:  # another process has just removed it
                    continue
                found.append(StoredFile(file.name, status.st_size, status.st_mtime_ns))
        except OSError as error:
            raise StorageError(f"cannot list {self.path}: {error}") from error
        return found

    def read(self, name: str) -> bytes:
        """See `Storage`."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(f"cannot read {self.path / name}: {error}") from error

    def write(self, name: str, content: bytes | memoryview) -> None:
        """See `Storage`. When it returns, the file survives a crash of the machine."""
        target = self.path / name
        partial = self.path / f"{name}.{uuid4().hex}{_PARTIAL}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                with partial.open("xb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
                partial.replace(target)
                _flush(self.path)
            finally:
                partial.unlink(missing_ok=True)
            self._sweep()
        except OSError as error:
            raise StorageError(f"cannot write {target}: {error}") from error

    def delete(self, name: str) -> None:
        """See `Storage`."""
        try:
            (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot remove {self.path / name}: {error}") from error

    def _files(self) -> Sequence[Path]:
        try:
            entries = [*self.path.iterdir()]
        except FileNotFoundError:
            return []
        return [entry for entry in entries if entry.suffix != _PARTIAL and entry.is_file()]

    def _sweep(self) -> None:
        """Removes what writers have left that were killed."""
        for file in self.path.glob(f"*{_PARTIAL}"):
            with suppress(OSError):  # another process's, or just gone
                # A young one may be another process's file in the making.
                if file.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                    file.unlink()


def _flush(folder: Path) -> None:
    """Waits until a folder's entries are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The storage in an object store or any other file system that pyarrow knows, or fsspec."""

import importlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from pyarrow import ArrowException, fs

from search_core.storage import StorageError, StoredFile
from store.artifacts import redacted

_ERRORS: Final = (OSError, ArrowException)

_WITHOUT_FOLDERS: Final = frozenset({"s3", "gcs", "abfs"})
"""File systems in which a folder is but the start of a name."""

_PARTIAL: Final = ".partial"


class ObjectStorage:
    """The storage in a folder of a pyarrow file system.

    An object store publishes an object whole when it is complete, and not before. What fsspec
    reaches shows a file while it is written: there it gets a name of its own first, as in a folder.
    What a writer leaves that is killed goes with the folder. The contents of checkpoints are
    checked against their names besides, for file systems that copy when they are told to rename.

    Args:
        file_system: Any of pyarrow's.
        path: The folder in it.
        where: The folder for people, without secrets.
    """

    def __init__(self, file_system: fs.FileSystem, path: str, where: str) -> None:
        self._fs = file_system
        self._path = path
        self._where = where
        self._shows_early = file_system.type_name.startswith("py::")

    @property
    def where(self) -> str:
        """See `Storage`."""
        return self._where

    def list(self) -> Sequence[StoredFile]:
        """See `Storage`."""
        try:
            found = self._fs.get_file_info(fs.FileSelector(self._path, allow_not_found=True))
        except _ERRORS as error:
            raise StorageError(f"cannot list {self._where}: {error}") from error
        return [
            StoredFile(each.base_name, each.size, each.mtime_ns or 0)
            for each in found
            if each.type == fs.FileType.File and not each.base_name.endswith(_PARTIAL)
        ]

    def read(self, name: str) -> bytes:
        """See `Storage`."""
        try:
            with self._fs.open_input_stream(f"{self._path}/{name}") as stream:
                content: bytes = stream.read()
        except FileNotFoundError:
            raise
        except _ERRORS as error:
            raise StorageError(f"cannot read {self._where}/{name}: {error}") from error
        return content

    def write(self, name: str, content: bytes | memoryview) -> None:
        """See `Storage`."""
        target = f"{self._path}/{name}"
        written = f"{target}.{uuid4().hex}{_PARTIAL}" if self._shows_early else target
        try:
            if self._fs.type_name not in _WITHOUT_FOLDERS:
                self._fs.create_dir(self._path, recursive=True)
            # One write of all: what fails in the middle of it never completes an object.
            with self._fs.open_output_stream(written) as stream:
                stream.write(content)
            if written != target:
                self._fs.move(written, target)
        except _ERRORS as error:
            raise StorageError(f"cannot write {self._where}/{name}: {error}") from error

    def delete(self, name: str) -> None:
        """See `Storage`."""
        try:
            self._fs.delete_file(f"{self._path}/{name}")
        except FileNotFoundError:
            return
        except _ERRORS as error:
            raise StorageError(f"cannot remove {self._where}/{name}: {error}") from error

    def remove(self) -> None:
        """Removes the folder with all that is below it.

        Raises:
            StorageError: The storage does not answer.
        """
        try:
            self._fs.delete_dir(self._path)
        except FileNotFoundError:
            return
        except _ERRORS as error:
            raise StorageError(f"cannot remove {self._where}: {error}") from error


def open_url(url: str, path: str) -> ObjectStorage:
    """The storage of a folder below a URL.

    Args:
        url: Such as `s3://bucket/prefix?endpoint_override=http://127.0.0.1:9000`.
        path: The folder below it.

    Raises:
        StorageError: The URL cannot be opened.
    """
    file_system, base = _file_system(url)
    root = base.rstrip("/")
    if not root and file_system.type_name in _WITHOUT_FOLDERS:
        raise StorageError(f"{redacted(url)} names no bucket; write it like s3://bucket/prefix")
    shown, _, query = redacted(url).partition("?")
    where = f"{shown.rstrip('/')}/{path}" if path else shown
    if query:
        where += f" ({query})"
    return ObjectStorage(file_system, f"{root}/{path}" if path else root, where)


@lru_cache(maxsize=8)
def _file_system(url: str) -> tuple[fs.FileSystem, str]:
    """The file system of a URL, made once in a process, and the path in it."""
    try:
        return _from_uri(url)
    except (OSError, ValueError, ImportError, NotImplementedError) as error:
        # Arrow may repeat the URL, or a part of it.
        said = str(error).replace(url, redacted(url))
        password = urlsplit(url).password or ""
        for secret in filter(None, (password, unquote(password))):
            said = said.replace(secret, "***")
        raise StorageError(
            f"DARTBOARD_STORAGE is {redacted(url)}, which cannot be opened: {said}. Name a folder, "
            "or a URL such as s3://bucket/prefix"
        ) from None


def _from_uri(url: str) -> tuple[fs.FileSystem, str]:
    scheme = urlsplit(url).scheme
    if scheme == "s3" and "allow_delayed_open" not in url:
        # One request for a small file in place of the three of an upload in parts.
        url += ("&" if "?" in url else "?") + "allow_delayed_open=true"
    try:
        file_system, path = fs.FileSystem.from_uri(url)
    except (ValueError, NotImplementedError):
        if scheme not in _known_to_fsspec():
            raise
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]

        other, path = url_to_fs(url)
        return fs.PyFileSystem(fs.FSSpecHandler(other)), path
    return file_system, path


def _known_to_fsspec() -> frozenset[str]:
    """The schemes of fsspec that pyarrow has none of; none where fsspec is not installed."""
    try:
        registry: Any = importlib.import_module("fsspec.registry")
    except ImportError:
        return frozenset()
    return frozenset(registry.known_implementations) - {"s3", "gs", "gcs", "abfs", "hdfs", "file"}

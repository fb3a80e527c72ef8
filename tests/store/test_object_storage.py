"""The storage on a real S3-compatible server, and on a file system of fsspec's."""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pyarrow import fs

from search_core.checkpoints import Checkpoints
from search_core.storage import Storage, StorageError
from store.artifacts import ArtifactFolder, redacted, remove
from store.object_storage import ObjectStorage
from tests.contracts import (
    LARGE,
    CheckpointsContract,
    StorageContract,
    check_latest,
    epochs,
    names,
    state_of,
)
from tests.s3 import SECRET_KEY, S3Server

_numbers = itertools.count()


@pytest.fixture
def on_s3(s3_server: S3Server) -> Storage:
    """A folder of this test's own on the server."""
    return (ArtifactFolder(s3_server.url(f"prefix-{next(_numbers)}")) / "trial-0").open()


class TestS3(StorageContract):
    """The contract, on S3."""

    @pytest.fixture
    def storage(self, on_s3: Storage) -> Storage:
        return on_s3


class TestCheckpointsOnS3(CheckpointsContract):
    """The contract of checkpoints, on S3."""

    @pytest.fixture
    def storage(self, on_s3: Storage) -> Storage:
        return on_s3


class TestFsspec(StorageContract):
    """The contract, on a file system that only fsspec knows."""

    @pytest.fixture
    def storage(self) -> Storage:
        return (ArtifactFolder(f"memory://{uuid4()}") / "trial-0").open()


def test_folders_below_one_url_do_not_see_each_other(s3_server: S3Server) -> None:
    root = ArtifactFolder(s3_server.url(f"prefix-{next(_numbers)}"))
    (root / "a").open().write("x", b"1")
    (root / "a" / "below").open().write("y", b"2")
    (root / "ab").open().write("z", b"3")
    assert names((root / "a").open()) == ["x"]
    assert names(root.open()) == []


@pytest.mark.parametrize("kind", ["folder", "s3", "fsspec"])
def test_a_folder_is_removed_with_all_below_it_and_nothing_beside_it(
    kind: str, tmp_path: Path, s3_server: S3Server
) -> None:
    roots = {
        "folder": str(tmp_path),
        "s3": s3_server.url(f"prefix-{next(_numbers)}"),
        "fsspec": f"memory://{uuid4()}",
    }
    root = ArtifactFolder(roots[kind])
    for place in (root / "a", root / "a" / "logs", root / "ab"):
        place.open().write("x", b"1")
    for _ in range(2):
        remove(root / "a")
        assert names((root / "a").open()) == names((root / "a" / "logs").open()) == []
        assert names((root / "ab").open()) == ["x"]
    if kind == "s3":
        with s3_server.gone(), pytest.raises(StorageError, match="cannot remove s3://"):
            remove(root / "ab")


def test_a_server_that_is_gone_is_an_error_and_what_was_there_stays(
    s3_server: S3Server, on_s3: Storage
) -> None:
    checkpoints = Checkpoints(on_s3)
    checkpoints.save(1, state_of(1))
    with s3_server.gone():
        with pytest.raises(StorageError, match=r"cannot write s3://.*epoch-000002"):
            checkpoints.save(2, state_of(2))
        # Not None, with which a trial would begin anew.
        with pytest.raises(StorageError, match="cannot list s3://"):
            checkpoints.load_latest()
        with pytest.raises(StorageError, match="cannot read s3://"):
            on_s3.read("a")
        with pytest.raises(StorageError, match="cannot remove s3://"):
            on_s3.delete("a")
    check_latest(checkpoints, 1)
    checkpoints.save(2, state_of(2))
    assert epochs(on_s3) == [1, 2]


class _LosesItsServer:
    """A file system whose server goes when all parts of a file are sent, and before their end."""

    type_name = "s3"

    def __init__(self, file_system: fs.FileSystem, server: S3Server) -> None:
        self._fs = file_system
        self._server = server

    @contextmanager
    def open_output_stream(self, path: str) -> Iterator[Any]:
        with self._fs.open_output_stream(path) as stream:
            yield stream
            self._server.go()


def test_a_server_that_goes_in_the_middle_of_an_upload_publishes_nothing(
    s3_server: S3Server, on_s3: Storage
) -> None:
    checkpoints = Checkpoints(on_s3)
    checkpoints.save(1, state_of(1))
    assert isinstance(on_s3, ObjectStorage)
    broken: Any = _LosesItsServer(on_s3._fs, s3_server)
    try:
        with pytest.raises(StorageError, match="cannot write broken"):
            ObjectStorage(broken, on_s3._path, "broken").write(f"epoch-000002.{'0' * 64}.pt", LARGE)
    finally:
        s3_server.come_back()
    assert epochs(on_s3) == [1]
    check_latest(checkpoints, 1)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("/a/folder", "/a/folder"),
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("s3://key:secret@bucket/p?region=eu", "s3://***@bucket/p?region=eu"),
        ("s3://key@bucket", "s3://***@bucket"),
        ("s3://bucket/p?token=secret", "s3://bucket/p?token=***"),
        (
            "s3://bucket/p?endpoint_override=http://me:secret@host:1",
            "s3://bucket/p?endpoint_override=http://***@host:1",
        ),
    ],
)
def test_a_url_is_shown_without_credentials(url: str, shown: str) -> None:
    assert redacted(url) == shown
    assert "secret" not in repr(ArtifactFolder(url))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://key:se%2Fcret@bucket?what=secret", "Unexpected query parameter"),
        ("nosuch://key:se%2Fcret@bucket", "Unrecognized filesystem type"),
        ("s3://key:se%2Fcret@", "names no bucket"),
    ],
)
def test_a_url_that_cannot_be_opened_is_told_without_credentials(url: str, message: str) -> None:
    with pytest.raises(StorageError, match=message) as raised:
        ArtifactFolder(url).open()
    assert "cret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_errors_of_a_server_name_no_credentials(s3_server: S3Server) -> None:
    url = s3_server.url("prefix", credentials=True)
    assert SECRET_KEY in url
    storage = (ArtifactFolder(url) / "trial-0").open()
    storage.write("a", b"1")
    assert storage.read("a") == b"1"
    with s3_server.gone(), pytest.raises(StorageError, match=r"s3://\*\*\*@") as raised:
        storage.write("a", b"2")
    assert SECRET_KEY not in str(raised.value)
    assert SECRET_KEY not in storage.where


def test_a_folder_needs_no_pyarrow(tmp_path: object) -> None:
    code = f"""
import sys
sys.modules["pyarrow"] = None
from store.artifacts import ArtifactFolder
for root in ({str(tmp_path)!r}, "file://{tmp_path}"):
    storage = (ArtifactFolder(root) / "a b").open()
    storage.write("x", b"1")
    print(storage.where, len(storage.list()))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == f"{tmp_path}/a b 1\n" * 2

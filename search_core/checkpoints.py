"""Checkpoints of one trial in a folder: written whole or not at all, checked when read.

A checkpoint is two files, `epoch-000007.pt` and `epoch-000007.pt.sha256`. The digest is written
first: a state without one, or one that does not match it, is not intact.
"""

import hashlib
import logging
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"epoch-(\d{6,})\.pt")
_TEMPORARY = ".partial"
_DIGEST = ".sha256"


class CheckpointFolder:
    """The newest checkpoints of one trial. One process writes to a folder at a time.

    Args:
        path: The folder; made on the first save.
        keep: How many of the newest to keep. With 2, a damaged newest one costs one epoch.

    Attributes:
        path: The folder.
        skipped: What the last `load_latest` passed over: file name to reason.
    """

    def __init__(self, path: Path | str, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep {keep} checkpoints: it must be at least 1")
        self.path = Path(path)
        self.keep = keep
        self.skipped: dict[str, str] = {}

    def save(self, epoch: int, state: dict[str, Any]) -> Path:
        """Writes a checkpoint, then removes those older than the newest `keep`.

        When it returns, the checkpoint survives a crash of the machine. When it raises, the
        earlier ones are still there.

        Args:
            epoch: Completed epochs; a checkpoint of the same epoch is replaced.
            state: Tensors, numbers, strings, lists and dicts.

        Returns:
            The checkpoint's file.

        Raises:
            OSError: The disk is full, or the folder cannot be written to.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        target = self.path / f"epoch-{epoch:06d}.pt"
        partial = target.with_name(target.name + _TEMPORARY)
        try:
            try:
                torch.save(state, partial)
            except RuntimeError as error:  # PyTorch's writer reports a full disk so
                raise OSError(f"cannot write {partial}: {error}") from error
            _flush(partial)
            digest = _sha256(partial)
            self._write_digest(target, digest)
            partial.replace(target)
            _flush(self.path)
        finally:
            partial.unlink(missing_ok=True)
        self._prune()
        return target

    def load_latest(self) -> tuple[int, dict[str, Any]] | None:
        """Reads the newest intact checkpoint, with its tensors on the CPU.

        Damaged ones are passed over, logged as warnings and listed in `skipped`.

        Returns:
            The completed epochs and the state, or None where there is no intact checkpoint.
        """
        self.skipped = {}
        for epoch, file in reversed(self._files()):
            try:
                return epoch, _read(file)
            except _DamagedError as error:
                self.skipped[file.name] = str(error)
                _LOG.warning("passed over the checkpoint %s: %s", file, error)
        return None

    def _files(self) -> list[tuple[int, Path]]:
        """Epoch and file of every checkpoint, oldest first."""
        if not self.path.is_dir():
            return []
        matches = ((_NAME.fullmatch(file.name), file) for file in self.path.iterdir())
        return sorted((int(match[1]), file) for match, file in matches if match)

    def _write_digest(self, target: Path, digest: str) -> None:
        file = _digest_of(target)
        partial = file.with_name(file.name + _TEMPORARY)
        try:
            partial.write_text(f"{digest}  {target.name}\n")
            _flush(partial)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)

    def _prune(self) -> None:
        kept = {file.name for _, file in self._files()[-self.keep :]}
        for file in self.path.iterdir():
            name = file.name.removesuffix(_TEMPORARY).removesuffix(_DIGEST)
            if _NAME.fullmatch(name) and (name not in kept or file.name.endswith(_TEMPORARY)):
                file.unlink(missing_ok=True)


class _DamagedError(Exception):
    """A checkpoint is not what was written."""


def _read(file: Path) -> dict[str, Any]:
    try:
        expected = _digest_of(file).read_text().split(maxsplit=1)[:1]
        actual = _sha256(file)
    except (OSError, UnicodeDecodeError) as error:
        raise _DamagedError(f"cannot be read: {error}") from error
    if expected != [actual]:
        raise _DamagedError("its SHA-256 digest does not match; the file is cut short or damaged")
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise _DamagedError(f"cannot be loaded: {error}") from error
    return state


def _digest_of(file: Path) -> Path:
    return file.with_name(file.name + _DIGEST)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Waits until a file's content, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

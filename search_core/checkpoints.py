"""Checkpoints of one trial in a folder: written whole or not at all, checked when read.

A checkpoint is one file whose name holds its epoch and its own SHA-256 digest, so that one rename
publishes both. A file that does not match its name is not intact. Two processes that write to the
same folder, as an old attempt of a trial and its successor may for a moment, do not disturb each
other.
"""

import hashlib
import logging
import os
import pickle
import re
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import torch

_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"epoch-(\d{6,})\.([0-9a-f]{64})\.pt")
_PARTIAL = ".partial"
_ABANDONED_SECONDS = 24 * 60 * 60


class CheckpointFolder:
    """The newest checkpoints of one trial.

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
            epoch: Completed epochs; an earlier checkpoint of the same epoch is replaced.
            state: Tensors, numbers, strings, lists and dicts.

        Returns:
            The checkpoint's file.

        Raises:
            OSError: The disk is full, or the folder cannot be written to.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(
            prefix=f"epoch-{epoch:06d}.", suffix=_PARTIAL, dir=self.path
        )
        os.close(descriptor)
        partial = Path(name)
        try:
            try:
                torch.save(state, partial)
            except RuntimeError as error:  # PyTorch's writer reports a full disk so
                raise OSError(f"cannot write {partial}: {error}") from error
            _flush(partial)
            target = self.path / f"epoch-{epoch:06d}.{_sha256(partial)}.pt"
            partial.replace(target)
            _flush(self.path)
        finally:
            partial.unlink(missing_ok=True)
        self._prune()
        return target

    def load_latest(self, *, before: int | None = None) -> tuple[int, dict[str, Any]] | None:
        """Reads the newest intact checkpoint, with its tensors on the CPU.

        Damaged ones are passed over, logged as warnings and listed in `skipped`.

        Args:
            before: Only those of fewer completed epochs; None for all.

        Returns:
            The completed epochs and the state, or None where there is no intact checkpoint.
        """
        self.skipped = {}
        for epoch, digest, file in reversed(self._files()):
            if before is not None and epoch >= before:
                continue
            try:
                return epoch, _read(file, digest)
            except _DamagedError as error:
                self.skipped[file.name] = str(error)
                _LOG.warning("passed over the checkpoint %s: %s", file, error)
        return None

    def _files(self) -> list[tuple[int, str, Path]]:
        """Epoch, digest and file of every checkpoint, oldest first."""
        if not self.path.is_dir():
            return []
        found = []
        for file in self.path.iterdir():
            match = _NAME.fullmatch(file.name)
            try:
                if match:
                    found.append((int(match[1]), file.stat().st_mtime_ns, match[2], file))
            except FileNotFoundError:  # another process has just pruned it
                continue
        return [(epoch, digest, file) for epoch, _, digest, file in sorted(found)]

    def _prune(self) -> None:
        files = self._files()
        # The last one of each epoch, in an order that two writers agree on.
        last_of_epoch = {epoch: file for epoch, _, file in files}
        kept = {last_of_epoch[epoch] for epoch in sorted(last_of_epoch)[-self.keep :]}
        for _, _, file in files:
            if file not in kept:
                file.unlink(missing_ok=True)
        for file in self.path.glob(f"*{_PARTIAL}"):
            try:
                # A young one may be another process's checkpoint in the making.
                if file.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                    file.unlink(missing_ok=True)
            except FileNotFoundError:
                continue


class _DamagedError(Exception):
    """A checkpoint is not what was written."""


def _read(file: Path, digest: str) -> dict[str, Any]:
    try:
        actual = _sha256(file)
    except OSError as error:
        raise _DamagedError(f"cannot be read: {error}") from error
    if actual != digest:
        raise _DamagedError("its SHA-256 digest does not match; the file is cut short or damaged")
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise _DamagedError(f"cannot be loaded: {error}") from error
    return state


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

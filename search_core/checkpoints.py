"""Checkpoints of one trial in a storage: written whole or not at all, checked when read.

A checkpoint is one file whose name holds its epoch, the validation accuracy after that epoch and
its own SHA-256 digest, so that one write publishes all of them. A file that does not match its name
is not intact. Two processes that write to the same storage, as an old attempt of a trial and its
successor may for a moment, do not disturb each other: which checkpoints are kept follows from
the names alone.
"""

import hashlib
import io
import logging
import math
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from search_core.storage import Storage, StorageError

_LOG = logging.getLogger(__name__)
_NAME = re.compile(
    r"epoch-(?P<epoch>\d{6,})"
    r"(\.accuracy-(?P<accuracy>-?\d+\.\d{9}))?"
    r"\.(?P<digest>[0-9a-f]{64})\.pt"
)


@dataclass(frozen=True)
class _Checkpoint:
    """What a file's name says."""

    name: str
    epoch: int
    accuracy: float | None
    digest: str


class Checkpoints:
    """The newest checkpoints of one trial, and the one of its best epoch.

    Args:
        storage: Where they are and go.
        keep: How many of the newest to keep. With 2, a damaged newest one costs one epoch.

    Attributes:
        skipped: What the last load passed over: file name to reason.
    """

    def __init__(self, storage: Storage, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep {keep} checkpoints: it must be at least 1")
        self._storage = storage
        self.keep = keep
        self.skipped: dict[str, str] = {}

    def save(self, epoch: int, state: dict[str, Any], *, accuracy: float | None = None) -> str:
        """Writes a checkpoint, then removes those that are neither of the newest `keep` nor best.

        When it returns, the checkpoint survives a crash of the machine. When it raises, the
        earlier ones are still there.

        Args:
            epoch: Completed epochs; an earlier checkpoint of the same epoch is replaced.
            state: Tensors, numbers, strings, lists and dicts.
            accuracy: On validation images after the epoch, by which the best epoch is chosen; one
                that is None or not finite never is.

        Returns:
            The name of the checkpoint's file.

        Raises:
            StorageError: The storage is full or gone.
        """
        stream = io.BytesIO()
        torch.save(state, stream)
        content = stream.getbuffer()
        name = f"epoch-{epoch:06d}."
        if accuracy is not None and math.isfinite(accuracy):
            name += f"accuracy-{accuracy:.9f}."
        name += f"{hashlib.sha256(content).hexdigest()}.pt"
        self._storage.write(name, content)
        self._prune()
        return name

    def load_latest(self, *, before: int | None = None) -> tuple[int, dict[str, Any]] | None:
        """Reads the newest intact checkpoint, with its tensors on the CPU.

        Damaged ones are passed over, logged as warnings and listed in `skipped`.

        Args:
            before: Only those of fewer completed epochs; None for all.

        Returns:
            The completed epochs and the state, or None where there is no intact checkpoint.

        Raises:
            StorageError: The storage does not answer, so that nobody knows whether there is one.
        """
        self.skipped = {}
        found = [each for each in self._found() if before is None or each.epoch < before]
        return self._first_intact(found[::-1])

    def load_best(self) -> tuple[int, dict[str, Any]] | None:
        """Reads the checkpoint of the epoch with the best accuracy, of equals the earliest one's.

        Returns:
            As `load_latest`; None too where no epoch had an accuracy, or the best is damaged.

        Raises:
            StorageError: The storage does not answer.
        """
        self.skipped = {}
        best = _best(_last_of_epochs(self._found()).values())
        return None if best is None else self._first_intact([best])

    def _first_intact(
        self, checkpoints: Sequence[_Checkpoint]
    ) -> tuple[int, dict[str, Any]] | None:
        unread: StorageError | None = None
        for each in checkpoints:
            try:
                return each.epoch, _read(self._storage, each)
            except (_DamagedError, StorageError) as error:
                self.skipped[each.name] = str(error)
                _LOG.warning(
                    "passed over the checkpoint %s in %s: %s", each.name, self._storage.where, error
                )
                if isinstance(error, StorageError):
                    unread = unread or error
        if unread is not None:
            # To begin anew would throw away what may be there when the storage is back.
            raise unread
        return None

    def _found(self) -> Sequence[_Checkpoint]:
        """Every checkpoint, oldest first, in an order that two writers agree on."""
        found = []
        for file in self._storage.list():
            if match := _NAME.fullmatch(file.name):
                accuracy = match["accuracy"]
                checkpoint = _Checkpoint(
                    file.name,
                    int(match["epoch"]),
                    None if accuracy is None else float(accuracy),
                    match["digest"],
                )
                found.append((checkpoint.epoch, file.modified_ns, file.name, checkpoint))
        return [checkpoint for *_, checkpoint in sorted(found, key=lambda each: each[:3])]

    def _prune(self) -> None:
        found = self._found()
        last_of_epoch = _last_of_epochs(found)
        kept = {last_of_epoch[epoch].name for epoch in sorted(last_of_epoch)[-self.keep :]}
        if (best := _best(last_of_epoch.values())) is not None:
            kept.add(best.name)
        for each in found:
            if each.name not in kept:
                self._storage.delete(each.name)


class _DamagedError(Exception):
    """A checkpoint is not what was written."""


def _last_of_epochs(found: Sequence[_Checkpoint]) -> Mapping[int, _Checkpoint]:
    return {each.epoch: each for each in found}


def _best(checkpoints: Iterable[_Checkpoint]) -> _Checkpoint | None:
    measured = [
        (each.accuracy, -each.epoch, each) for each in checkpoints if each.accuracy is not None
    ]
    return max(measured, key=lambda each: each[:2])[2] if measured else None


def _read(storage: Storage, checkpoint: _Checkpoint) -> dict[str, Any]:
    try:
        content = storage.read(checkpoint.name)
    except FileNotFoundError as error:  # another process has just removed it
        raise _DamagedError(f"cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != checkpoint.digest:
        raise _DamagedError("its SHA-256 digest does not match; the file is cut short or damaged")
    try:
        state: dict[str, Any] = torch.load(
            io.BytesIO(content), map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise _DamagedError(f"cannot be loaded: {error}") from error
    return state

"""Loading a data set by its spec, and making sure that it is what the spec says.

A loader is registered for each `name`; all of them return both splits, and nothing but this module
looks at whether the sizes, shapes and classes are right.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from search_core.data.images import Dataset, Images
from search_core.data.stored import StoredImages
from search_core.data.streamed import StreamedImages
from search_core.errors import DataNotFoundError
from search_core.spec.dataset_facts import DatasetFacts
from search_core.spec.datasets import BaseDataset, DownloadableDataset, FileDataset

DEFAULT_DATA_ROOT = Path("data")
"""The data folder where the caller names none: `data` in the working directory."""

_LOCK = ".download.lock"

Loader = Callable[[Any, Path], Dataset]
"""Loads the data set of a spec out of its folder; data sets that need no file ignore it."""

REGISTRY: dict[str, Loader] = {}
"""The loader of every data set that a spec can name."""


def register(*names: str) -> Callable[[Loader], Loader]:
    """Registers a loader.

    Args:
        *names: The `name` in the spec of every data set that it loads.

    Returns:
        A decorator that registers the loader and returns it as it is.
    """

    def add(loader: Loader) -> Loader:
        for name in names:
            assert name not in REGISTRY, f"data set {name} is registered twice"
            REGISTRY[name] = loader
        return loader

    return add


def load(
    dataset: BaseDataset, data_root: Path | str = DEFAULT_DATA_ROOT, *, num_workers: int = 0
) -> Dataset:
    """Loads a data set: into main memory, or as a list of files if it is streamed.

    Args:
        dataset: The `dataset` of a spec.
        data_root: The data folder: `dataset.root` is relative to it.
        num_workers: Processes that read images ahead if the data set is streamed; 0 reads in the
            training process. The images are the same with any number.

    Returns:
        The data set, always with the same images in the same order.

    Raises:
        DataNotFoundError: The data set is not in its folder, or is not what the spec says; the
            message names the folder and says what to do.
    """
    folder = folder_of(dataset, data_root)
    try:
        with _alone_in(folder) if _downloads(dataset) else nullcontext():
            loaded = REGISTRY[dataset.name](dataset, folder)
    except (RuntimeError, OSError, ValueError) as error:
        if not isinstance(dataset, FileDataset):
            raise
        raise DataNotFoundError(_not_found(dataset, folder, error)) from error
    where = f"the data set {dataset.name!r}"
    if isinstance(dataset, FileDataset):
        where += f" in {folder.absolute()}"
    facts = dataset.facts
    check_is_as_told(loaded.train, facts, facts.num_train, f"the training split of {where}")
    check_is_as_told(loaded.test, facts, facts.num_test, f"the test split of {where}")
    return Dataset(
        train=_read_by(loaded.train, num_workers), test=_read_by(loaded.test, num_workers)
    )


def folder_of(dataset: BaseDataset, data_root: Path | str) -> Path:
    """The folder in which a data set is looked for.

    Args:
        dataset: The `dataset` of a spec.
        data_root: The data folder.
    """
    root = dataset.root if isinstance(dataset, FileDataset) else None
    return Path(data_root) if root is None else Path(data_root) / root


def check_is_as_told(images: Images, facts: DatasetFacts, num_images: int, what: str) -> None:
    """Refuses images that are not those which the spec was judged by.

    Args:
        images: What was loaded.
        facts: What is known of the data set.
        num_images: How many images there should be.
        what: What was loaded, in words.

    Raises:
        DataNotFoundError: Number, shape or classes differ.
    """
    if len(images) != num_images:
        raise DataNotFoundError(
            f"{what} has {len(images):,} images instead of {num_images:,}; replace the files, or "
            "correct the spec where it tells the number"
        )
    if not isinstance(images, StoredImages):
        return  # scaled as they are read, and their classes are the folders that were counted
    shape = tuple(images.pixels_nchw.shape[1:])
    if shape != facts.image_shape or images.pixels_nchw.dtype != torch.uint8:
        raise DataNotFoundError(
            f"{what} has images of shape {shape} and type {images.pixels_nchw.dtype} instead of "
            f"{facts.image_shape} and torch.uint8; replace the files"
        )
    if int(images.labels_n.min()) < 0 or int(images.labels_n.max()) >= facts.num_classes:
        raise DataNotFoundError(
            f"{what} has labels from {int(images.labels_n.min())} to {int(images.labels_n.max())} "
            f"instead of 0 to {facts.num_classes - 1}; replace the files"
        )


def _downloads(dataset: BaseDataset) -> bool:
    return isinstance(dataset, DownloadableDataset) and dataset.download


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Lets one process at a time download into a folder: a search's trials start together."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back when the file is closed
        yield


def _read_by(images: Images, num_workers: int) -> Images:
    if isinstance(images, StreamedImages):
        return replace(images, num_workers=num_workers)
    return images


def _not_found(dataset: FileDataset, folder: Path, error: Exception) -> str:
    reason = " ".join(str(error).split())
    message = f"no usable data set {dataset.name!r} in {folder.absolute()}: "
    if isinstance(dataset, DownloadableDataset):
        if dataset.download:
            return f"{message}it could not be downloaded there ({reason}); put its files there"
        # torchvision ends on an argument that nobody here can pass.
        reason = reason.partition(" You can use download=True")[0].rstrip(".")
        return f"{message}{reason}; put its files there, or set dataset.download to true"
    return f"{message}{reason}; put its files there, or name its folder in dataset.root"

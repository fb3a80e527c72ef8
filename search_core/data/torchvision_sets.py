"""Small data sets that torchvision reads: whole, into memory.

torchvision checks the files' digests where it knows them, and reads both splits. It is slow to
import, since PyTorch's compiler comes with it, and so is imported by those who call it.

Legend: n images, c channels, h height, w width.
"""

from pathlib import Path

import torch
from torch import Tensor

from search_core.data.images import Dataset, Normalisation
from search_core.data.loading import register
from search_core.data.stored import StoredImages
from search_core.spec.datasets import (
    Cifar10Dataset,
    Cifar100Dataset,
    DownloadableDataset,
    EmnistDataset,
    FashionMnistDataset,
    MnistDataset,
    Stl10Dataset,
    SvhnDataset,
)


@register("cifar10", "cifar100")
def load_cifar(dataset: Cifar10Dataset | Cifar100Dataset, folder: Path) -> Dataset:
    """Loads CIFAR-10, or CIFAR-100 with its fine classes."""
    from torchvision import datasets

    kind = datasets.CIFAR10 if dataset.name == "cifar10" else datasets.CIFAR100

    def read(*, train: bool) -> StoredImages:
        split = kind(folder, train=train, download=dataset.download)
        pixels_nhwc = torch.from_numpy(split.data)
        return _stored(dataset, pixels_nhwc.permute(0, 3, 1, 2), torch.tensor(split.targets))

    return Dataset(train=read(train=True), test=read(train=False))


@register("svhn")
def load_svhn(dataset: SvhnDataset, folder: Path) -> Dataset:
    """Loads SVHN, in which the digit 0 is class 0."""
    from torchvision import datasets

    def read(split_name: str) -> StoredImages:
        split = datasets.SVHN(folder, split=split_name, download=dataset.download)
        return _stored(dataset, torch.from_numpy(split.data), torch.from_numpy(split.labels))

    return Dataset(train=read("train"), test=read("test"))


@register("mnist", "fashion_mnist")
def load_mnist(dataset: MnistDataset | FashionMnistDataset, folder: Path) -> Dataset:
    """Loads MNIST or Fashion-MNIST."""
    from torchvision import datasets

    kind = datasets.MNIST if dataset.name == "mnist" else datasets.FashionMNIST

    def read(*, train: bool) -> StoredImages:
        split = kind(folder, train=train, download=dataset.download)
        return _stored(dataset, split.data.unsqueeze(1), split.targets)

    return Dataset(train=read(train=True), test=read(train=False))


@register("emnist")
def load_emnist(dataset: EmnistDataset, folder: Path) -> Dataset:
    """Loads a split of EMNIST, upright."""
    from torchvision import datasets

    # The files count letters from 1, and everything else from 0.
    first_label = 1 if dataset.split == "letters" else 0

    def read(*, train: bool) -> StoredImages:
        split = datasets.EMNIST(folder, split=dataset.split, train=train, download=dataset.download)
        # The files have rows and columns exchanged, compared with MNIST's.
        pixels_nchw = split.data.transpose(1, 2).unsqueeze(1)
        return _stored(dataset, pixels_nchw, split.targets - first_label)

    return Dataset(train=read(train=True), test=read(train=False))


@register("stl10")
def load_stl10(dataset: Stl10Dataset, folder: Path) -> Dataset:
    """Loads the labelled images of STL-10, all ten folds."""
    from torchvision import datasets

    def read(split_name: str) -> StoredImages:
        split = datasets.STL10(folder, split=split_name, download=dataset.download)
        return _stored(dataset, torch.from_numpy(split.data), torch.from_numpy(split.labels))

    return Dataset(train=read("train"), test=read("test"))


def _stored(dataset: DownloadableDataset, pixels_nchw: Tensor, labels_n: Tensor) -> StoredImages:
    return StoredImages(pixels_nchw.contiguous(), labels_n.long(), Normalisation.of(dataset.facts))

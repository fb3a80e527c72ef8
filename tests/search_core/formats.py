"""Tiny data sets in the files that the real ones come in, for torchvision's own loaders to read.

Where torchvision knows the digests of the real files, they are class attributes; these writers put
the digests of what they wrote there for the time of a test. The facts, which a loaded data set is
held against, get the sizes of what was written.

Legend: n images, c channels, h height, w width.
"""

import hashlib
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat  # type: ignore[import-untyped]
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.v2.functional import center_crop, pil_to_tensor

from search_core.spec import file_datasets
from search_core.spec.dataset_base import BaseDataset
from search_core.spec.dataset_facts import EMNIST_FACTS, EXTRA_TEST_FACTS, FACTS, EmnistSplit
from search_core.spec.datasets import (
    Cifar10Dataset,
    Cifar100Dataset,
    EmnistDataset,
    FashionMnistDataset,
    ImageFolderDataset,
    ImagenetDataset,
    MnistDataset,
    Stl10Dataset,
    SvhnDataset,
)

NUM_TRAIN, NUM_TEST = 60, 20


@dataclass(frozen=True)
class Split:
    """What was written, as it should be read."""

    pixels_nchw: Tensor
    labels_n: Tensor


@dataclass(frozen=True)
class Written:
    """A data set on the disk."""

    dataset: BaseDataset
    train: Split
    test: Split


Writer = Callable[[Path, pytest.MonkeyPatch], Written]


def write_cifar10(folder: Path, patch: pytest.MonkeyPatch) -> Written:
    _shrink(patch, "cifar10")
    train, test = _splits((3, 32, 32), 10)
    files = folder / "cifar-10-batches-py"
    files.mkdir(parents=True)
    part = NUM_TRAIN // 5
    digests = []
    for index in range(5):
        name, chosen = f"data_batch_{index + 1}", slice(index * part, (index + 1) * part)
        digests.append([name, _cifar_file(files / name, train, chosen, "labels")])
    patch.setattr(datasets.CIFAR10, "train_list", digests)
    last = ["test_batch", _cifar_file(files / "test_batch", test, slice(None), "labels")]
    patch.setattr(datasets.CIFAR10, "test_list", [last])
    meta = files / "batches.meta"
    meta.write_bytes(pickle.dumps({"label_names": [str(label) for label in range(10)]}))
    patch.setattr(
        datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": md5(meta.read_bytes())}
    )
    return Written(Cifar10Dataset(name="cifar10"), train, test)


def write_cifar100(folder: Path, patch: pytest.MonkeyPatch) -> Written:
    _shrink(patch, "cifar100")
    train, test = _splits((3, 32, 32), 100)
    files = folder / "cifar-100-python"
    files.mkdir(parents=True)
    for name, split in (("train", train), ("test", test)):
        digest = _cifar_file(files / name, split, slice(None), "fine_labels")
        patch.setattr(datasets.CIFAR100, f"{name}_list", [[name, digest]])
    meta = files / "meta"
    meta.write_bytes(pickle.dumps({"fine_label_names": [str(label) for label in range(100)]}))
    patch.setattr(
        datasets.CIFAR100, "meta", {**datasets.CIFAR100.meta, "md5": md5(meta.read_bytes())}
    )
    return Written(Cifar100Dataset(name="cifar100"), train, test)


def write_svhn(folder: Path, patch: pytest.MonkeyPatch) -> Written:
    _shrink(patch, "svhn")
    train, test = _splits((3, 32, 32), 10)
    folder.mkdir(parents=True, exist_ok=True)
    digests = {}
    for name, split in (("train", train), ("test", test)):
        file = folder / f"{name}_32x32.mat"
        labels_n = split.labels_n.numpy()
        # The real files count the digit 0 as 10.
        marks_n = np.where(labels_n == 0, 10, labels_n).astype(np.uint8)
        images_hwcn = split.pixels_nchw.permute(2, 3, 1, 0).numpy()
        savemat(file, {"X": images_hwcn, "y": marks_n[:, None]})
        digests[name] = ["nowhere", file.name, md5(file.read_bytes())]
    patch.setattr(datasets.SVHN, "split_list", digests)
    return Written(SvhnDataset(name="svhn"), train, test)


def write_mnist(folder: Path, patch: pytest.MonkeyPatch) -> Written:
    _shrink(patch, "mnist")
    train, test = _splits((1, 28, 28), 10)
    _idx_files(folder / "MNIST" / "raw", {"train": train, "t10k": test})
    return Written(MnistDataset(name="mnist"), train, test)


def write_fashion_mnist(folder: Path, patch: pytest.MonkeyPatch) -> Written:
    _shrink(patch, "fashion_mnist")
    train, test = _splits((1, 28, 28), 10)
    _idx_files(folder / "FashionMNIST" / "raw", {"train": train, "t10k": test})
    return Written(FashionMnistDataset(name="fashion_mnist"), train, test)


def write_emnist(split: EmnistSplit) -> Writer:
    def write(folder: Path, patch: pytest.MonkeyPatch) -> Written:
        facts = replace(EMNIST_FACTS[split], num_train=NUM_TRAIN, num_test=NUM_TEST)
        patch.setitem(EMNIST_FACTS, split, facts)
        train, test = _splits((1, 28, 28), facts.num_classes)
        first_label = 1 if split == "letters" else 0
        # The real files have rows and columns exchanged.
        files = {
            f"emnist-{split}-{name}": Split(
                part.pixels_nchw.transpose(2, 3), part.labels_n + first_label
            )
            for name, part in (("train", train), ("test", test))
        }
        _idx_files(folder / "EMNIST" / "raw", files)
        return Written(EmnistDataset(name="emnist", split=split), train, test)

    return write


def write_stl10(folder: Path, patch: pytest.MonkeyPatch) -> Written:
    _shrink(patch, "stl10")
    train, test = _splits((3, 96, 96), 10)
    files = folder / "stl10_binary"
    files.mkdir(parents=True)
    digests = {}
    for name, split in (("train", train), ("test", test)):
        # Column by column, and classes from 1.
        images = split.pixels_nchw.transpose(2, 3).contiguous().numpy().tobytes()
        labels = (split.labels_n + 1).to(torch.uint8).numpy().tobytes()
        for suffix, content in (("X", images), ("y", labels)):
            (files / f"{name}_{suffix}.bin").write_bytes(content)
        digests[name] = [[f"{name}_X.bin", md5(images)], [f"{name}_y.bin", md5(labels)]]
    (files / "unlabeled_X.bin").write_bytes(b"")
    unlabelled = ["unlabeled_X.bin", md5(b"")]
    patch.setattr(datasets.STL10, "train_list", [*digests["train"], unlabelled])
    patch.setattr(datasets.STL10, "test_list", digests["test"])
    return Written(Stl10Dataset(name="stl10"), train, test)


def write_imagenet(folder: Path, patch: pytest.MonkeyPatch) -> Written:
    """The unpacked form: photographs in a folder for each WordNet id, and `meta.bin`."""
    for name, value in (("NUM_TRAIN", NUM_TRAIN), ("NUM_TEST", NUM_TEST), ("NUM_CLASSES", 3)):
        patch.setattr(file_datasets, f"IMAGENET_{name}", value)
    root = folder / "imagenet"
    ids = ["n01440764", "n01443537", "n01484850"]
    train = _photographs(root / "train", ids, NUM_TRAIN, "JPEG")
    test = _photographs(root / "val", ids, NUM_TEST, "JPEG")
    names = {id_: (f"thing {index}",) for index, id_ in enumerate(ids)}
    torch.save((names, [ids[0]] * NUM_TEST), root / "meta.bin")
    return Written(ImagenetDataset(name="imagenet", image_size=28), train, test)


def write_image_folder(folder: Path, patch: pytest.MonkeyPatch, **fields: Any) -> Written:
    root = folder / "mine"
    classes = ["ant", "bee", "cow"]
    train = _photographs(root / "train", classes, NUM_TRAIN, "PNG")
    test = _photographs(root / "test", classes, NUM_TEST, "PNG")
    dataset = ImageFolderDataset(
        name="image_folder",
        root="mine",
        image_size=28,
        num_classes=3,
        num_train=NUM_TRAIN,
        num_test=NUM_TEST,
        **fields,
    )
    return Written(dataset, train, test)


def write_cifar10_1(folder: Path, patch: pytest.MonkeyPatch) -> Split:
    facts = replace(EXTRA_TEST_FACTS["cifar10_1"], num_test=NUM_TEST)
    patch.setitem(EXTRA_TEST_FACTS, "cifar10_1", facts)
    _, test = _splits((3, 32, 32), 10)
    np.save(folder / "cifar10.1_v6_data.npy", test.pixels_nchw.permute(0, 2, 3, 1).numpy())
    np.save(folder / "cifar10.1_v6_labels.npy", test.labels_n.to(torch.int32).numpy())
    return test


WRITERS: dict[str, Writer] = {
    "cifar10": write_cifar10,
    "cifar100": write_cifar100,
    "svhn": write_svhn,
    "mnist": write_mnist,
    "fashion_mnist": write_fashion_mnist,
    **{f"emnist-{split}": write_emnist(split) for split in EMNIST_FACTS},
    "stl10": write_stl10,
    "imagenet": write_imagenet,
    "image_folder": write_image_folder,
}


def _shrink(patch: pytest.MonkeyPatch, name: str) -> None:
    patch.setitem(FACTS, name, replace(FACTS[name], num_train=NUM_TRAIN, num_test=NUM_TEST))


def _splits(shape: tuple[int, int, int], num_classes: int) -> tuple[Split, Split]:
    generator = torch.Generator().manual_seed(1)

    def draw(num_images: int) -> Split:
        return Split(
            torch.randint(256, (num_images, *shape), generator=generator, dtype=torch.int64).to(
                torch.uint8
            ),
            torch.arange(num_images) % num_classes,
        )

    return draw(NUM_TRAIN), draw(NUM_TEST)


def _cifar_file(file: Path, split: Split, chosen: slice, labels: str) -> str:
    pixels = split.pixels_nchw[chosen].flatten(1).numpy()
    content = pickle.dumps({"data": pixels, labels: split.labels_n[chosen].tolist()})
    file.write_bytes(content)
    return md5(content)


def _idx_files(folder: Path, splits: dict[str, Split]) -> None:
    """The format of MNIST: a magic number with type and rank, the sizes, then the bytes."""
    folder.mkdir(parents=True)
    for name, split in splits.items():
        num_images, _, height, width = split.pixels_nchw.shape
        images = struct.pack(">IIII", 0x803, num_images, height, width)
        images += split.pixels_nchw.contiguous().numpy().tobytes()
        (folder / f"{name}-images-idx3-ubyte").write_bytes(images)
        labels = struct.pack(">II", 0x801, num_images)
        labels += split.labels_n.to(torch.uint8).numpy().tobytes()
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(labels)


def _photographs(folder: Path, classes: list[str], num_images: int, kind: str) -> Split:
    """Photographs of 32x32, out of whose middle 28x28 are cut, in the order of their reading."""
    generator = np.random.default_rng(num_images)
    for index in range(num_images):
        class_folder = folder / classes[index % len(classes)]
        class_folder.mkdir(parents=True, exist_ok=True)
        pixels_hwc = generator.integers(256, size=(32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels_hwc).save(class_folder / f"{index:03}.{kind}", format=kind)
    read, labels = [], []
    for label, name in enumerate(classes):
        for file in sorted((folder / name).iterdir()):
            with Image.open(file) as photograph:
                read.append(center_crop(pil_to_tensor(photograph), [28, 28]))
            labels.append(label)
    return Split(torch.stack(read), torch.tensor(labels))


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()

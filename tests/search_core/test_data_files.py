"""The loaders, on files in the format of the real data sets."""

import gzip
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from search_core import data
from search_core.data import Images, StoredImages, StreamedImages, halves
from search_core.errors import DataNotFoundError
from search_core.randomness import stream
from search_core.spec.datasets import (
    BaseDataset,
    Cifar10Dataset,
    DownloadableDataset,
    FileDataset,
    ImageFolderDataset,
    MnistDataset,
)
from tests.search_core.formats import (
    NUM_TEST,
    NUM_TRAIN,
    WRITERS,
    Split,
    Writer,
    Written,
    md5,
    write_cifar10,
    write_cifar10_1,
    write_image_folder,
    write_mnist,
)

ALL_WRITERS = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


def assert_reads(images: Images, expected: Split) -> None:
    assert isinstance(images, StoredImages)
    assert images.pixels_nchw.dtype == torch.uint8
    assert torch.equal(images.pixels_nchw, expected.pixels_nchw)
    assert torch.equal(images.labels_n, expected.labels_n)


@ALL_WRITERS
def test_images_and_labels_are_those_in_the_files(
    write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write(tmp_path, monkeypatch)
    loaded = data.load(written.dataset, tmp_path)
    assert_reads(loaded.train, written.train)
    assert_reads(loaded.test, written.test)


@ALL_WRITERS
def test_no_image_is_in_two_splits(
    write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = data.load(write(tmp_path, monkeypatch).dataset, tmp_path)
    weights, alphas = halves(loaded.train, 0.7, stream(0, "halves"))
    images = []
    for part in (weights, alphas, loaded.test):
        assert isinstance(part, StoredImages)
        images += [tuple(image.flatten().tolist()) for image in part.pixels_nchw]
    assert len(images) == len(set(images)) == NUM_TRAIN + NUM_TEST


@ALL_WRITERS
def test_missing_files_are_an_error_that_names_the_folder(
    write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = write(tmp_path / "elsewhere", monkeypatch).dataset
    assert isinstance(dataset, FileDataset)
    looked_in = tmp_path / "here"
    folder = looked_in / dataset.root if dataset.root else looked_in
    advice = "set dataset.download" if isinstance(dataset, DownloadableDataset) else "dataset.root"
    with pytest.raises(DataNotFoundError, match=f"{dataset.name}' in {folder}: .*{advice}"):
        data.load(dataset, looked_in)
    assert not any(looked_in.rglob("*.*"))


def test_the_folder_is_relative_to_the_data_folder_or_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_cifar10(tmp_path / "sets" / "cifar", monkeypatch)
    relative = Cifar10Dataset(name="cifar10", root="cifar")
    assert_reads(data.load(relative, tmp_path / "sets").train, written.train)
    absolute = Cifar10Dataset(name="cifar10", root=str(tmp_path / "sets" / "cifar"))
    assert_reads(data.load(absolute, tmp_path / "nowhere").train, written.train)
    monkeypatch.chdir(tmp_path / "sets" / "cifar")
    with pytest.raises(DataNotFoundError, match=f"in {tmp_path}/sets/cifar/data: "):
        data.load(written.dataset)


def test_a_damaged_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = write_cifar10(tmp_path, monkeypatch).dataset
    file = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(DataNotFoundError, match="corrupted"):
        data.load(dataset, tmp_path)


def test_another_number_of_images_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = write_mnist(tmp_path, monkeypatch).dataset
    monkeypatch.undo()
    with pytest.raises(
        DataNotFoundError, match=f"'mnist' in {tmp_path} has 60 images instead of 60,000"
    ):
        data.load(dataset, tmp_path)


def test_a_label_beyond_the_classes_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = write_mnist(tmp_path, monkeypatch).dataset
    file = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes()[:-1] + b"\x0a")
    with pytest.raises(DataNotFoundError, match=r"test split .* labels from 0 to 10 instead"):
        data.load(dataset, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 4}, "has 3 folders, but dataset.num_classes is 4"),
        ({"num_train": 61}, "training split .* has 60 images instead of 61"),
        ({"num_test": 19}, "test split .* has 20 images instead of 19"),
    ],
)
def test_a_folder_that_is_not_as_the_spec_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, int], message: str
) -> None:
    dataset = write_image_folder(tmp_path, monkeypatch).dataset
    with pytest.raises(DataNotFoundError, match=message):
        data.load(dataset.model_copy(update=changes), tmp_path)


def test_a_class_without_test_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = write_image_folder(tmp_path, monkeypatch).dataset
    (tmp_path / "mine" / "test" / "bee").rename(tmp_path / "mine" / "test" / "bees")
    with pytest.raises(DataNotFoundError, match="'bee' is in one of them only"):
        data.load(dataset, tmp_path)


def test_photographs_of_any_size_are_scaled_and_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_image_folder(tmp_path, monkeypatch)
    for size in (10, 64):
        dataset = written.dataset.model_copy(update={"image_size": size})
        assert isinstance(dataset, ImageFolderDataset)
        train = data.load(dataset, tmp_path).train
        assert isinstance(train, StoredImages)
        assert train.pixels_nchw.shape == (NUM_TRAIN, 3, size, size)


@pytest.mark.parametrize(
    ("in_memory", "kind"), [(None, StoredImages), (True, StoredImages), (False, StreamedImages)]
)
def test_small_sets_are_kept_in_memory_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool | None, kind: type[Images]
) -> None:
    dataset = write_image_folder(tmp_path, monkeypatch, in_memory=in_memory).dataset
    loaded = data.load(dataset, tmp_path)
    assert type(loaded.train) is type(loaded.test) is kind


def test_cifar10_1_is_a_test_set_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = write_cifar10_1(tmp_path, monkeypatch)
    images = data.load_extra_test("cifar10_1", tmp_path)
    assert_reads(images, expected)
    written = write_cifar10(tmp_path, monkeypatch)
    train = data.load(written.dataset, tmp_path).train
    assert isinstance(train, StoredImages)
    assert images.normalisation == train.normalisation
    assert "cifar10_1" not in data.REGISTRY


def test_missing_and_foreign_files_of_cifar10_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataNotFoundError, match=f"in {tmp_path}: .*put cifar10.1_v6_data.npy and"):
        data.load_extra_test("cifar10_1", tmp_path)
    write_cifar10_1(tmp_path, monkeypatch)
    np.save(tmp_path / "cifar10.1_v6_labels.npy", np.array([{"a": "pickle"}], dtype=object))
    with pytest.raises(DataNotFoundError, match="allow_pickle=False"):
        data.load_extra_test("cifar10_1", tmp_path)


@dataclass(frozen=True)
class Server:
    """A web server, and what it was asked for."""

    address: str
    folder: Path
    requests: list[str]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    requests: list[str] = []

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            # torchvision asks where an address leads before it fetches, and marks that so.
            if self.headers.get("Method") != "HEAD":
                requests.append(self.path)

    folder = tmp_path / "served"
    folder.mkdir()
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{http.server_port}/", folder, requests)
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def serve_mnist(server: Server, origin: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    written = write_mnist(origin, monkeypatch)
    resources = []
    for file in sorted((origin / "MNIST" / "raw").iterdir()):
        content = gzip.compress(file.read_bytes())
        (server.folder / f"{file.name}.gz").write_bytes(content)
        resources.append((f"{file.name}.gz", md5(content)))
    monkeypatch.setattr(datasets.MNIST, "mirrors", [server.address])
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    return written


def test_a_download_where_the_spec_asks_for_it(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = serve_mnist(server, tmp_path / "origin", monkeypatch)
    wanted = MnistDataset(name="mnist", download=True)
    assert_reads(data.load(wanted, tmp_path / "data").train, written.train)
    assert len(server.requests) == 4
    # What is there is not fetched again, and needs no leave to be used.
    for dataset in (wanted, MnistDataset(name="mnist")):
        assert_reads(data.load(dataset, tmp_path / "data").test, written.test)
    assert len(server.requests) == 4


def test_trials_that_start_together_download_once(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = serve_mnist(server, tmp_path / "origin", monkeypatch)
    wanted = MnistDataset(name="mnist", download=True)
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda _: data.load(wanted, tmp_path / "data"), range(4)))
    for each in loaded:
        assert_reads(each.train, written.train)
    assert len(server.requests) == 4


def test_a_download_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/"
    monkeypatch.setattr(datasets.MNIST, "mirrors", [address])
    dataset: BaseDataset = MnistDataset(name="mnist", download=True)
    with pytest.raises(
        DataNotFoundError, match=rf"in {tmp_path}/data: it could not be downloaded .*refused"
    ):
        data.load(dataset, tmp_path / "data")

"""What every storage promises, and what checkpoints promise on every storage.

A test class inherits a contract and gives it a `storage` fixture.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from search_core.checkpoints import Checkpoints
from search_core.storage import Storage

LARGE = bytes(range(256)) * 2**16  # 16 MiB: an object store takes it in parts


def names(storage: Storage) -> Sequence[str]:
    return sorted(file.name for file in storage.list())


class StorageContract:
    """Of every storage."""

    def test_an_empty_or_missing_folder_holds_nothing(self, storage: Storage) -> None:
        assert storage.list() == []
        with pytest.raises(FileNotFoundError):
            storage.read("missing")

    @pytest.mark.parametrize("content", [b"", b"a few bytes", LARGE], ids=["none", "few", "many"])
    def test_what_is_written_comes_back(self, storage: Storage, content: bytes) -> None:
        storage.write("a", content)
        storage.write("b", memoryview(content))
        assert storage.read("a") == storage.read("b") == content
        assert {(file.name, file.size) for file in storage.list()} == {
            ("a", len(content)),
            ("b", len(content)),
        }

    def test_a_later_file_takes_the_place_of_an_earlier_one(self, storage: Storage) -> None:
        storage.write("a", b"the first and longer one")
        storage.write("a", b"the second")
        assert storage.read("a") == b"the second"
        assert names(storage) == ["a"]

    def test_what_is_deleted_is_gone_and_may_be_deleted_again(self, storage: Storage) -> None:
        storage.write("a", b"1")
        storage.write("b", b"2")
        storage.delete("a")
        storage.delete("a")
        assert names(storage) == ["b"]
        with pytest.raises(FileNotFoundError):
            storage.read("a")

    @pytest.fixture
    def hasty_threads(self) -> Iterator[None]:
        """Threads that take turns a thousand times as often, in the middle of what they do."""
        interval = sys.getswitchinterval()
        sys.setswitchinterval(5e-6)
        yield
        sys.setswitchinterval(interval)

    @pytest.mark.usefixtures("hasty_threads")
    def test_a_reader_never_sees_half_a_file(self, storage: Storage) -> None:
        """Two writers of one name, and a reader beside them."""
        contents = [bytes([number]) * 200_000 for number in range(2)]
        storage.write("a", contents[0])

        def write(number: int) -> None:
            for _ in range(200):
                storage.write("a", contents[number])

        with ThreadPoolExecutor(2) as pool:
            writers = [pool.submit(write, number) for number in range(2)]
            while not all(writer.done() for writer in writers):
                assert storage.read("a") in contents
        for writer in writers:
            writer.result()
        assert names(storage) == ["a"]

    def test_it_says_where_it_is(self, storage: Storage) -> None:
        assert storage.where


def state_of(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "weights": torch.full((100,), float(epoch)), "rows": [[1.5], ["a"]]}


def check_latest(checkpoints: Checkpoints, epoch: int) -> None:
    latest = checkpoints.load_latest()
    assert latest is not None
    assert latest[0] == latest[1]["epoch"] == epoch
    assert torch.equal(latest[1]["weights"], state_of(epoch)["weights"])


def epochs(storage: Storage) -> list[int]:
    return [int(name.split(".")[0].removeprefix("epoch-")) for name in names(storage)]


def name_of(storage: Storage, epoch: int) -> str:
    (name,) = (each for each in names(storage) if each.startswith(f"epoch-{epoch:06d}."))
    return name


class CheckpointsContract:
    """Of checkpoints on every storage."""

    @pytest.fixture
    def checkpoints(self, storage: Storage) -> Checkpoints:
        checkpoints = Checkpoints(storage)
        for epoch in (1, 2, 3):
            checkpoints.save(epoch, state_of(epoch))
        return checkpoints

    def test_the_newest_comes_back_and_older_ones_go(
        self, storage: Storage, checkpoints: Checkpoints
    ) -> None:
        check_latest(checkpoints, 3)
        assert checkpoints.skipped == {}
        assert epochs(storage) == [2, 3]

    def test_an_older_one_comes_back_where_it_is_asked_for(self, checkpoints: Checkpoints) -> None:
        older = checkpoints.load_latest(before=3)
        assert older is not None
        assert older[0] == older[1]["epoch"] == 2
        assert checkpoints.load_latest(before=2) is None

    def test_an_empty_storage_has_none(self, storage: Storage) -> None:
        assert Checkpoints(storage).load_latest() is None
        assert Checkpoints(storage).load_best() is None

    def test_numbers_order_epochs_not_names(self, storage: Storage) -> None:
        checkpoints = Checkpoints(storage, keep=3)
        for epoch in (999_999, 1_000_000, 0):
            checkpoints.save(epoch, state_of(epoch))
        check_latest(checkpoints, 1_000_000)

    def test_the_same_epoch_is_replaced(self, checkpoints: Checkpoints) -> None:
        checkpoints.save(3, {**state_of(3), "again": True})
        latest = checkpoints.load_latest()
        assert latest is not None
        assert latest[1]["again"]

    def test_the_best_epoch_survives_the_newer_ones(self, storage: Storage) -> None:
        accuracies = {1: 0.5, 2: 0.75, 3: 0.6, 4: 0.75, 5: 0.7, 6: 0.1}
        for epoch, accuracy in accuracies.items():
            # As after a restart: nothing is remembered but what is stored.
            Checkpoints(storage).save(epoch, state_of(epoch), accuracy=accuracy)
        assert epochs(storage) == [2, 5, 6]
        checkpoints = Checkpoints(storage)
        best = checkpoints.load_best()
        assert best is not None
        assert best[0] == best[1]["epoch"] == 2
        check_latest(checkpoints, 6)
        checkpoints.save(7, state_of(7), accuracy=0.8)
        assert epochs(storage) == [6, 7]

    @pytest.mark.parametrize("unknown", [None, float("nan"), float("inf")])
    def test_what_is_no_number_is_never_the_best(
        self, storage: Storage, unknown: float | None
    ) -> None:
        checkpoints = Checkpoints(storage, keep=1)
        checkpoints.save(1, state_of(1), accuracy=-0.5)
        checkpoints.save(2, state_of(2), accuracy=unknown)
        checkpoints.save(3, state_of(3), accuracy=unknown)
        assert epochs(storage) == [1, 3]

    def test_the_best_is_the_last_resort(self, storage: Storage) -> None:
        checkpoints = Checkpoints(storage)
        for epoch in (1, 2, 3, 4):
            checkpoints.save(epoch, state_of(epoch), accuracy=1 / epoch)
        for epoch in (3, 4):
            storage.write(name_of(storage, epoch), b"nothing")
        check_latest(checkpoints, 1)
        assert len(checkpoints.skipped) == 2

    @pytest.mark.parametrize("length", [0, 1, 500, -1])
    def test_a_file_cut_short_is_passed_over(
        self,
        storage: Storage,
        checkpoints: Checkpoints,
        length: int,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        name = name_of(storage, 3)
        storage.write(name, storage.read(name)[:length])
        with caplog.at_level(logging.WARNING):
            check_latest(checkpoints, 2)
        assert list(checkpoints.skipped) == [name]
        assert "cut short or damaged" in checkpoints.skipped[name]
        assert name in caplog.text

    def test_a_flipped_bit_anywhere_is_noticed(
        self, storage: Storage, checkpoints: Checkpoints
    ) -> None:
        name = name_of(storage, 3)
        content = storage.read(name)
        for position in range(0, len(content), len(content) // 20):
            damaged = bytearray(content)
            damaged[position] ^= 1
            storage.write(name, bytes(damaged))
            check_latest(checkpoints, 2)

    def test_a_name_without_the_right_digest_is_no_checkpoint(
        self, storage: Storage, checkpoints: Checkpoints
    ) -> None:
        name = name_of(storage, 3)
        storage.write(f"epoch-000003.{'0' * 64}.pt", storage.read(name))
        storage.delete(name)
        check_latest(checkpoints, 2)
        storage.write("epoch-000009.pt", b"anything")
        check_latest(checkpoints, 2)

    def test_when_all_are_damaged_there_is_none(
        self, storage: Storage, checkpoints: Checkpoints
    ) -> None:
        for name in names(storage):
            storage.write(name, b"nothing")
        assert checkpoints.load_latest() is None
        assert len(checkpoints.skipped) == 2

    def test_two_writers_do_not_disturb_each_other(self, storage: Storage) -> None:
        def write(writer: int) -> None:
            checkpoints = Checkpoints(storage)
            for epoch in range(20):
                accuracy = 0.9 if epoch == 4 else epoch / 100
                checkpoints.save(epoch, {**state_of(epoch), "writer": writer}, accuracy=accuracy)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(write, range(2)))
        check_latest(Checkpoints(storage), 19)
        assert epochs(storage) == [4, 18, 19]

    def test_files_of_others_stay(self, storage: Storage, checkpoints: Checkpoints) -> None:
        storage.write("notes.txt", b"mine")
        checkpoints.save(4, state_of(4))
        assert "notes.txt" in names(storage)

    def test_a_pickle_that_would_execute_code_is_refused(
        self, storage: Storage, checkpoints: Checkpoints
    ) -> None:
        checkpoints.save(4, {"path": Path("x")})
        check_latest(checkpoints, 3)
        assert "cannot be loaded" in checkpoints.skipped[name_of(storage, 4)]

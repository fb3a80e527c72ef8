import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from search_core.checkpoints import CheckpointFolder


def state_of(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "weights": torch.full((100,), float(epoch)), "rows": [[1.5], ["a"]]}


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    folder = CheckpointFolder(tmp_path / "trial" / "0")
    for epoch in (1, 2, 3):
        folder.save(epoch, state_of(epoch))
    return folder


def file_of(folder: CheckpointFolder, epoch: int) -> Path:
    (file,) = folder.path.glob(f"epoch-{epoch:06d}.*.pt")
    return file


def check_latest(folder: CheckpointFolder, epoch: int) -> None:
    latest = folder.load_latest()
    assert latest is not None
    assert latest[0] == latest[1]["epoch"] == epoch
    assert torch.equal(latest[1]["weights"], state_of(epoch)["weights"])


def test_the_newest_comes_back_and_older_ones_go(folder: CheckpointFolder) -> None:
    check_latest(folder, 3)
    assert folder.skipped == {}
    names = sorted(file.name for file in folder.path.iterdir())
    assert [name.split(".")[0] for name in names] == ["epoch-000002", "epoch-000003"]


def test_an_older_one_comes_back_where_it_is_asked_for(folder: CheckpointFolder) -> None:
    older = folder.load_latest(before=3)
    assert older is not None
    assert older[0] == older[1]["epoch"] == 2
    assert folder.load_latest(before=2) is None


def test_an_empty_or_missing_folder_has_none(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path).load_latest() is None
    assert CheckpointFolder(tmp_path / "missing").load_latest() is None


def test_numbers_order_epochs_not_names(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=3)
    for epoch in (999_999, 1_000_000, 0):
        folder.save(epoch, state_of(epoch))
    check_latest(folder, 1_000_000)


def test_the_same_epoch_is_replaced(folder: CheckpointFolder) -> None:
    folder.save(3, {**state_of(3), "again": True})
    latest = folder.load_latest()
    assert latest is not None
    assert latest[1]["again"]


@pytest.mark.parametrize("length", [0, 1, 500, -1])
def test_a_file_cut_short_is_passed_over(
    folder: CheckpointFolder, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    file = file_of(folder, 3)
    file.write_bytes(file.read_bytes()[:length])
    with caplog.at_level(logging.WARNING):
        check_latest(folder, 2)
    assert list(folder.skipped) == [file.name]
    assert "cut short or damaged" in folder.skipped[file.name]
    assert file.name in caplog.text


def test_a_flipped_bit_anywhere_is_noticed(folder: CheckpointFolder) -> None:
    file = file_of(folder, 3)
    content = file.read_bytes()
    for position in range(0, len(content), len(content) // 20):
        damaged = bytearray(content)
        damaged[position] ^= 1
        file.write_bytes(damaged)
        check_latest(folder, 2)


def test_a_name_without_the_right_digest_is_no_checkpoint(folder: CheckpointFolder) -> None:
    file = file_of(folder, 3)
    file.rename(folder.path / f"epoch-000003.{'0' * 64}.pt")
    check_latest(folder, 2)
    (folder.path / "epoch-000009.pt").write_bytes(b"anything")
    check_latest(folder, 2)


def test_when_all_are_damaged_there_is_none(folder: CheckpointFolder) -> None:
    for file in folder.path.glob("*.pt"):
        file.write_bytes(b"nothing")
    assert folder.load_latest() is None
    assert len(folder.skipped) == 2


def test_a_leftover_temporary_file_is_ignored_and_swept_when_old(folder: CheckpointFolder) -> None:
    old = folder.path / "epoch-000004.abc.partial"
    young = folder.path / "epoch-000004.def.partial"
    for leftover in (old, young):
        leftover.write_bytes(b"half a state")
    os.utime(old, (0, 0))
    check_latest(folder, 3)
    folder.save(4, state_of(4))
    assert not old.exists()
    assert young.exists()
    check_latest(folder, 4)


def test_two_writers_do_not_disturb_each_other(tmp_path: Path) -> None:
    def write(writer: int) -> None:
        folder = CheckpointFolder(tmp_path)
        for epoch in range(20):
            folder.save(epoch, {**state_of(epoch), "writer": writer})

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, range(2)))
    check_latest(CheckpointFolder(tmp_path), 19)


def test_files_of_others_stay(folder: CheckpointFolder) -> None:
    other = folder.path / "notes.txt"
    other.write_text("mine")
    folder.save(4, state_of(4))
    assert other.exists()


def test_a_full_disk_leaves_the_earlier_ones_usable(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(state: object, path: Path) -> None:
        path.write_bytes(b"half a state")
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match=r"cannot write .*epoch-000004"):
        folder.save(4, state_of(4))
    check_latest(folder, 3)
    assert not list(folder.path.glob("*.partial"))


def test_a_pickle_that_would_execute_code_is_refused(folder: CheckpointFolder) -> None:
    folder.save(4, {"path": Path("x")})
    check_latest(folder, 3)
    assert "cannot be loaded" in folder.skipped[file_of(folder, 4).name]


def test_keep_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        CheckpointFolder(tmp_path, keep=0)

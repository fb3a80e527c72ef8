"""How much memory there is, by the files of either version of control groups."""

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Engine

from store.states import Reason
from tests.workers.conftest import Record, tiny
from tests.workers.test_runner import claim
from workers import memory
from workers.failures import explain
from workers.inline_trials import InlineTrials
from workers.memory import NotEnoughMemoryError
from workers.runner import run
from workers.settings import WorkerSettings

PAPERS = tiny(space={"kind": "hypercuboid"}, training={"batch_size": 256})


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_the_tightest_group_of_version_2_counts(tmp_path: Path) -> None:
    group(
        tmp_path / "pods", memory__max=1000, memory__current=900, memory__stat="inactive_file 300"
    )
    group(tmp_path / "pods" / "mine", memory__max="max", memory__current=5, memory__stat="anon 5")
    (tmp_path / "membership").write_text("0::/pods/mine\n")
    limits = list(memory._limits(tmp_path, tmp_path / "membership"))
    # 300 of the 900 are pages of files, which are given up when somebody needs the room.
    assert limits == [(1000, 600)]


def test_version_1_has_a_tree_of_its_own_for_memory(tmp_path: Path) -> None:
    numbers = {
        "memory__limit_in_bytes": 500,
        "memory__usage_in_bytes": 100,
        "memory__stat": "cache 9\ntotal_inactive_file 40",
    }
    group(tmp_path / "memory" / "job", **numbers)
    (tmp_path / "membership").write_text("4:memory:/job\n3:cpu,cpuacct:/job\n0::/\n")
    assert list(memory._limits(tmp_path, tmp_path / "membership")) == [(500, 60)]


def test_a_path_of_the_host_leads_to_the_root_that_the_container_sees(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    group(root, memory__max=700, memory__current=200, memory__stat="inactive_file 0")
    (tmp_path / "membership").write_text("0::/kubepods/burstable/pod1\n")
    assert list(memory._limits(root, tmp_path / "membership")) == [(700, 200)]


def test_without_control_groups_the_machine_counts(tmp_path: Path) -> None:
    assert list(memory._limits(tmp_path, tmp_path / "no such file")) == []
    assert 0 < memory.available() < memory.total()


def test_a_cuboid_that_does_not_fit_is_refused_with_both_numbers() -> None:
    with pytest.raises(NotEnoughMemoryError) as raised:
        memory.check(PAPERS, 2**30, "its node")
    failure = explain(raised.value)
    assert failure.reason is Reason.OUT_OF_MEMORY
    assert not failure.retry
    assert "its node has 1.0 GiB free" in failure.message
    assert "Lower training.batch_size" in failure.message
    memory.check(PAPERS, 2**50, "its node")
    memory.check(tiny(), 0, "its node")  # the size of cells is not known beforehand


def test_a_search_that_does_not_fit_leaves_the_others_alone(
    engine: Engine,
    settings: WorkerSettings,
    submit: Callable[..., UUID],
    record: Callable[[UUID], Record],
) -> None:
    wide = {"kind": "hypercuboid", "axes": {"channels": [4096], "kernel_size": [3, 5]}}
    too_large = submit(
        space=wide,
        dataset={"name": "synthetic", "num_train": 8192, "image_shape": [3, 224, 224]},
        training={"batch_size": 4096},
    )
    small = submit()
    assert run(engine, claim(engine), settings, InlineTrials()) == "failed"
    after = record(too_large)
    assert after.search.reason == Reason.OUT_OF_MEMORY
    assert "GiB free" in after.search.message
    assert "trial.epoch" not in after.kinds
    assert run(engine, claim(engine), settings, InlineTrials()) == "succeeded"
    assert record(small).search.status == "succeeded"

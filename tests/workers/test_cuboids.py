"""A HyperCuboid on the bundled digits, from its submission over HTTP to its picture.

Runners are real processes, whose trials run inside them.
"""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
import torch

from search_core.genotype import parse
from search_core.search import SearchRun
from search_core.spec import SearchSpec
from tests.service.conftest import Api
from tests.workers.conftest import Record, Start, hold, wait_until
from workers.settings import WorkerSettings

SPEC: dict[str, Any] = {
    "name": "which kernel",
    "space": {
        "kind": "hypercuboid",
        "axes": {"channels": [4, 8], "kernel_size": [3, 5]},
        "levels": 1,
        "final_channels": 16,
    },
    "dataset": {"name": "digits"},
    "algorithm": {"weighting": "max_w", "architecture_learning_rate": 0.05},
    "training": {"epochs": 8, "batch_size": 128, "learning_rate": 0.1},
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """What runs in this process gives the bits of a trial's, which has one CPU."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="module")
def undisturbed(_one_thread: None) -> SearchRun:
    """The search in this process, from its first epoch to its last."""
    run = SearchRun(SearchSpec.model_validate(SPEC), seed=0)
    while not run.finished:
        run.run_epoch()
    return run


def test_a_killed_runner_changes_nothing_in_what_a_cuboid_comes_to(
    settings: WorkerSettings,
    database_url: str,
    start: Start,
    record: Callable[[UUID], Record],
    undisturbed: SearchRun,
) -> None:
    start()
    with Api(database_url) as api:
        answer = api.post("/v1/searches", json=SPEC)
        assert answer.status_code == 201, answer.text
        search_id = UUID(answer.json()["id"])
        wait_until(lambda: "trial.epoch" in record(search_id).kinds)
        hold(settings, search_id).kill()
        wait_until(lambda: record(search_id).search.status == "succeeded")
        search = api.get(f"/v1/searches/{search_id}").json()
        assert search["attempt"] == 2
        expected = undisturbed.genotype()
        assert search["recommended"]["architecture"] == expected.hash
        architecture = f"/v1/architectures/{expected.hash}"
        assert parse(api.get(f"{architecture}.txt").text) == expected
        assert b"</svg>" in api.get(f"{architecture}.svg").content

        trial = f"/v1/trials/{search['trials'][0]['id']}"
        alphas = api.get(f"{trial}/alphas").json()["items"]
        assert [item["step"] for item in alphas] == list(range(1, 9))
        weights = undisturbed.network.architecture_weights()["cuboid"].tolist()
        assert alphas[-1]["weights"]["cuboid"] == weights
        found = api.get(f"{trial}/paths?k=3").json()["items"]
        assert found[0]["architecture"] == expected.hash
        assert found[0]["score"] > found[1]["score"] >= found[2]["score"]
        assert b"</svg>" in api.get(f"{trial}/cuboid.svg").content

        series = api.get(f"{trial}/metrics?names=marginal.kernel_size*").json()["series"]
        assert sorted(series) == ["marginal.kernel_size=3", "marginal.kernel_size=5"]
        for three, five in zip(*(series[name] for name in sorted(series)), strict=True):
            assert three["value"] + five["value"] == pytest.approx(1)
        assert len(series["marginal.kernel_size=5"]) == 8


def test_a_killed_runner_changes_nothing_in_which_finalist_wins(
    settings: WorkerSettings, database_url: str, start: Start, record: Callable[[UUID], Record]
) -> None:
    spec = {
        **SPEC,
        "algorithm": {"weighting": "max_w", "finalists": {"paths": 3, "epochs": 6}},
        "training": {**SPEC["training"], "epochs": 2},
    }
    run = SearchRun(SearchSpec.model_validate(spec), seed=0)
    expected = [run.run_epoch() for _ in range(2 + 3 * 6)]
    assert run.finished
    start()
    with Api(database_url) as api:
        search_id = UUID(api.post("/v1/searches", json=spec).json()["id"])
        # In the middle of the second finalist, at the earliest.
        wait_until(lambda: record(search_id).trials[0].epoch >= 10)
        hold(settings, search_id).kill()
        wait_until(lambda: record(search_id).search.status == "succeeded")
        search = api.get(f"/v1/searches/{search_id}").json()
        trial = search["trials"][0]
        assert (search["attempt"], trial["epoch"], trial["epochs"]) == (2, 20, 20)
        assert search["recommended"]["architecture"] == expected[-1].genotype.hash
        series = api.get(f"/v1/trials/{trial['id']}/metrics").json()["series"]
        for name in ("finalist", "finalist_accuracy", "validation_accuracy", "train_loss"):
            assert {item["step"]: item["value"] for item in series[name]} == {
                report.epoch: report.metrics[name] for report in expected if name in report.metrics
            }
        alphas = api.get(f"/v1/trials/{trial['id']}/alphas").json()["items"]
        assert [item["weights"] for item in alphas] == [report.alphas for report in expected]
        found = api.get(f"/v1/trials/{trial['id']}/paths?k=3").json()
        assert found["derived"]["architecture"] == expected[-1].genotype.hash

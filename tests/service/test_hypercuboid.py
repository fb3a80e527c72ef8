"""HyperCuboids over HTTP: spec, size, alphas, paths and pictures."""

import csv
import io
from collections.abc import Callable
from typing import Any
from uuid import UUID
from xml.etree import ElementTree as ET

import pytest
from sqlalchemy import Engine

from search_core.cuboid_size import CuboidCosts
from search_core.derive import best_paths, heaviest_path
from search_core.genotype import PathGenotype, parse
from search_core.marginals import marginals
from search_core.spec.hypercuboid import HyperCuboidSpace
from search_core.spec.operations import OPERATIONS
from service.drawing import cuboids, grid, paths, rendering
from service.drawing.palette import INK
from store import endings, epoch_reports, queue, recording, searches
from store.epoch_reports import EpochResult
from store.leases import Capacity, Lease, Node
from store.sessions import transaction
from tests.service.conftest import Api, Worker

SPACE: dict[str, Any] = {
    "kind": "hypercuboid",
    "axes": {"channels": [4, 8], "kernel_size": [3, 5]},
    "levels": 1,
    "final_channels": 16,
}
CUBOID = HyperCuboidSpace.model_validate(SPACE)
SVG = "{http://www.w3.org/2000/svg}"

Report = Callable[[Lease, int], list[list[float]]]


def weights_at(step: int) -> list[list[float]]:
    """Weights that add up to 1 in each row, with another favourite at each step."""
    rows = []
    for position in range(len(CUBOID.positions)):
        row = [1.0 + index / 10 for index in range(len(CUBOID.operations))]
        row[(5 * position + step) % len(row)] += 4
        rows.append([weight / sum(row) for weight in row])
    return rows


@pytest.fixture
def report(engine: Engine) -> Report:
    """Reports an epoch of the first trial of a cuboid, as a runner does."""

    def report(lease: Lease, step: int) -> list[list[float]]:
        weights = weights_at(step)
        result = EpochResult(
            step,
            {"validation_accuracy": 0.9, **marginals(weights, CUBOID)},
            heaviest_path(weights, CUBOID),
            alphas={"cuboid": weights},
        )
        with transaction(engine) as session:
            trial = searches.trials(session, lease.search_id)[0]
            epoch_reports.epoch_ended(session, lease, trial.id, result)
        return weights

    return report


def submit(api: Api, **changes: Any) -> tuple[str, str]:
    """The ids of a submitted cuboid and of its first trial."""
    answer = api.submit(**{"space": SPACE, **changes})
    return answer["id"], answer["trials"][0]["id"]


@pytest.mark.parametrize(
    ("space", "pointer", "says"),
    [
        ({"axes": {"kernel_size": [3, 4]}}, "/space/axes/kernel_size/1", "must be odd"),
        ({"axes": {"kernel_size": [3, 3]}}, "/space/axes/kernel_size/1", "repeats"),
        ({"axes": {"kernel": [3]}}, "/space/axes/kernel", "registered are: channels, operation"),
        ({"axes": {"operation": ["sep"]}}, "/space/axes/operation/0", "choose from: sharp_sep"),
        ({"axes": {"kernel_size": 3}}, "/space/axes/kernel_size", "a list is written in brackets"),
        ({"axes": {"kernel_size": []}}, "/space/axes/kernel_size", "it is empty"),
        ({"levels": 0}, "/space/levels", "at least 1"),
        ({"strides": [1, 3]}, "/space/strides/1", "none of the choices"),
        ({"cells": 8}, "/space/cells", "unknown field 'cells'"),
        (
            {"axes": {"channels": [*range(1, 65)], "kernel_size": [3, 5]}},
            "/space/axes",
            "16,384 operations at each of 8 positions",
        ),
    ],
)
def test_each_mistake_has_its_pointer(
    offline: Api, space: dict[str, Any], pointer: str, says: str
) -> None:
    body = {"space": {"kind": "hypercuboid", **space}}
    answer = offline.post("/v1/searches", json=body)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert says in error["message"]


def test_a_cuboid_is_submitted_listed_and_cancelled_as_any_other(api: Api) -> None:
    search_id, _ = submit(api)
    api.submit()  # cells
    (found,) = api.get("/v1/searches?space=hypercuboid").json()["items"]
    assert (found["id"], found["spec"]["space"]["axes"]) == (search_id, SPACE["axes"])
    assert api.post(f"/v1/searches/{search_id}/cancel").json()["status"] == "cancelled"


def test_the_presets_of_cuboids_run_as_they_are(api: Api) -> None:
    presets = {each["name"]: each for each in api.get("/v1/presets").json()["items"]}
    papers = api.post("/v1/searches?dry_run=true", json={"preset": "hypercuboid-cifar10"}).json()
    assert papers["spec"] == presets["hypercuboid-cifar10"]["spec"] | {
        "preset": "hypercuboid-cifar10"
    }
    size = papers["size"]
    assert (size["positions"], size["operations"], size["architectures"]) == (8, 256, 67_108_864)
    assert size["parameters"] == 8_930_122
    assert "hypercuboid-digits-quick" in presets


def test_a_dry_run_tells_the_size(api: Api) -> None:
    size = api.post("/v1/searches?dry_run=true", json={"space": SPACE}).json()["size"]
    counted = CuboidCosts(CUBOID, (1, 8, 8), 10).size(64)
    assert size == {
        "positions": 2,
        "operations": 2 * 16,
        "architectures": 2 * (2 * 4) ** 2,
        "parameters": counted.parameters,
        "multiply_adds": counted.multiply_adds,
        "training_bytes": counted.training_bytes,
    }
    body = {"space": SPACE, "algorithm": {"order": "second"}}
    second = api.post("/v1/searches?dry_run=true", json=body).json()["size"]
    assert second["training_bytes"] > size["training_bytes"]


def test_of_cells_only_what_is_known_is_told(api: Api) -> None:
    body = {"space": {"kind": "darts", "nodes": 1}}
    size = api.post("/v1/searches?dry_run=true", json=body).json()["size"]
    assert (size["operations"], size["architectures"]) == (2 * 2 * 8, 7**4)
    unknown = ("positions", "parameters", "multiply_adds", "training_bytes")
    assert [size[name] for name in unknown] == [None] * 4


def test_a_dry_run_counts_a_stack_once_and_its_memory_as_often_as_it_has_seeds(api: Api) -> None:
    resources = {"cpus": 2, "gpus": 1}
    body = {"space": SPACE, "trials": {"seeds": [0, 1, 2, 3]}, "resources": resources}
    alone = api.post("/v1/searches?dry_run=true", json=body).json()
    body["trials"] = {"seeds": [0, 1, 2, 3], "stack": 3}
    stacked = api.post("/v1/searches?dry_run=true", json=body).json()
    assert (alone["num_trials"], alone["cpus"], alone["gpus"]) == (4, 8, 4)
    assert (stacked["num_trials"], stacked["cpus"], stacked["gpus"]) == (4, 4, 2)
    needed = [each["size"]["training_bytes"] for each in (alone, stacked)]
    assert needed[0] < needed[1] < 3 * needed[0]


def test_what_no_node_could_hold_is_refused_with_the_numbers(api: Api, engine: Engine) -> None:
    body = {"preset": "hypercuboid-cifar10", "resources": {"gpus": 0}}
    path = "/v1/searches"
    assert api.post(path, json=body).status_code == 201  # nobody knows the nodes yet

    def beat(*nodes: Node) -> None:
        with transaction(engine) as session:
            queue.heartbeat(session, "d", host="h", pid=1, capacity=Capacity(nodes))

    beat(Node(cpus=4, memory=2 * 2**30), Node(cpus=2, memory=8 * 2**30))
    for query in ("", "?dry_run=true"):
        answer = api.post(path + query, json=body)
        assert answer.status_code == 422
        (error,) = answer.json()["errors"]
        assert error["pointer"] == "/space"
        assert "the largest node has 8.0 GiB" in error["message"]
        assert "8,930,122 weights" in error["message"]
        assert "lower training.batch_size" in error["message"]
    smaller = {**body, "training": {"batch_size": 8}}
    assert api.post(path, json=smaller).status_code == 201
    # Many of them in one process are too large again.
    stacked = {**smaller, "trials": {"seeds": list(range(16)), "stack": 16}}
    assert api.post(path, json=stacked).status_code == 201  # one after the other
    stacked["algorithm"] = {"relaxation": "plain"}
    (error,) = api.post(path, json=stacked).json()["errors"]
    assert "16 seeds stacked" in error["message"]
    assert "lower training.batch_size or trials.stack" in error["message"]
    # What a GPU holds is not known before a trial is on it.
    assert api.post(path, json={"preset": "hypercuboid-cifar10"}).status_code == 201
    beat(Node(cpus=4, memory=2 * 2**30), Node(cpus=2))
    assert api.post(path, json=body).status_code == 201


def test_the_alphas_of_every_epoch_are_served_with_labels(
    api: Api, worker: Worker, report: Report
) -> None:
    _, trial_id = submit(api)
    lease = worker.claim()
    empty = api.get(f"/v1/trials/{trial_id}/alphas").json()
    assert (empty["items"], empty["last_step"]) == ([], 0)
    reported = {step: report(lease, step) for step in (1, 2, 3)}
    answer = api.get(f"/v1/trials/{trial_id}/alphas").json()
    assert answer["last_step"] == 3
    assert {item["step"]: item["weights"]["cuboid"] for item in answer["items"]} == reported
    group = answer["groups"]["cuboid"]
    assert [row["text"] for row in group["rows"]] == ["level 0 stride 1", "level 0 stride 2"]
    assert group["columns"][1] == {
        "text": "4 to 4 sharp_sep_conv kernel_size=5",
        "facts": {
            "in_channels": 4,
            "out_channels": 4,
            "operation": "sharp_sep_conv",
            "settings": {"kernel_size": 5},
        },
    }
    later = api.get(f"/v1/trials/{trial_id}/alphas?after_step=1&limit=1").json()
    assert [item["step"] for item in later["items"]] == [2]

    table = api.get(f"/v1/trials/{trial_id}/alphas?after_step=2", headers={"Accept": "text/csv"})
    assert table.headers["content-type"].startswith("text/csv")
    lines = list(csv.DictReader(io.StringIO(table.text)))
    assert len(lines) == 2 * len(CUBOID.operations)
    assert lines[1]["column"] == "4 to 4 sharp_sep_conv kernel_size=5"
    assert float(lines[1]["weight"]) == reported[3][0][1]


def test_cells_have_alphas_and_no_paths(api: Api, worker: Worker, engine: Engine) -> None:
    trial_id = api.submit()["trials"][0]["id"]
    lease = worker.claim()
    uniform = {"normal": [[1 / 8] * 8] * 2, "reduce": [[1 / 8] * 8] * 2}
    with transaction(engine) as session:
        found = heaviest_path(weights_at(1), CUBOID)
        result = EpochResult(1, {}, found, alphas=uniform)
        epoch_reports.epoch_ended(session, lease, UUID(trial_id), result)
    answer = api.get(f"/v1/trials/{trial_id}/alphas").json()
    assert answer["items"] == [{"step": 1, "weights": uniform}]
    assert [row["text"] for row in answer["groups"]["reduce"]["rows"]] == [
        "input 0 to node 0",
        "input 1 to node 0",
    ]
    for path in ("paths", "cuboid.svg", "cuboid.dot"):
        refused = api.get(f"/v1/trials/{trial_id}/{path}")
        assert refused.status_code == 409
        assert "searches cells (darts)" in refused.json()["detail"]


def test_before_the_first_epoch_there_are_no_paths(api: Api) -> None:
    _, trial_id = submit(api)
    refused = api.get(f"/v1/trials/{trial_id}/paths")
    assert refused.status_code == 409
    assert "has not completed an epoch yet" in refused.json()["detail"]


def test_a_finalist_that_is_not_the_heaviest_is_told_and_drawn(
    api: Api, worker: Worker, engine: Engine
) -> None:
    finalists = {"paths": 2, "epochs": 4}
    dry = {"space": SPACE, "algorithm": {"finalists": finalists}, "training": {"epochs": 1}}
    told = api.post("/v1/searches?dry_run=true", json=dry).json()
    assert (told["epochs"], told["batches_per_epoch"]) == (9, 718 // 64)
    assert told["finalist_batches_per_epoch"] == 1005 // 64
    plain = api.post("/v1/searches?dry_run=true", json={"space": SPACE}).json()
    assert plain["finalist_batches_per_epoch"] is None

    answer = api.post("/v1/searches", json=dry).json()
    trial = answer["trials"][0]
    assert trial["epochs"] == 9
    weights = weights_at(1)
    heaviest, rival = (path.genotype for path in best_paths(weights, CUBOID, 2))
    lease = worker.claim()
    for epoch, derived in enumerate((heaviest, rival), start=1):
        with transaction(engine) as session:
            result = EpochResult(epoch, {}, derived, alphas={"cuboid": weights})
            epoch_reports.epoch_ended(session, lease, UUID(trial["id"]), result)
        found = api.get(f"/v1/trials/{trial['id']}/paths?k=2").json()
        assert found["items"][0]["architecture"] == heaviest.hash
        assert found["derived"] == found["items"][epoch - 1]
        dot = api.get(f"/v1/trials/{trial['id']}/cuboid.dot").text
        assert dot == cuboids.to_dot(CUBOID, weights, derived, f"epoch {epoch} of 9")


def test_the_best_paths_are_those_of_the_last_epoch(
    api: Api, worker: Worker, report: Report
) -> None:
    _, trial_id = submit(api)
    lease = worker.claim()
    report(lease, 1)
    weights = report(lease, 2)
    answer = api.get(f"/v1/trials/{trial_id}/paths?k=5").json()
    assert (answer["step"], answer["epochs"], answer["within"]) == (2, 3, None)
    expected = best_paths(weights, CUBOID, 5)
    assert [item["score"] for item in answer["items"]] == [path.score for path in expected]
    for item, path in zip(answer["items"], expected, strict=True):
        assert parse(item["text"]) == path.genotype
        assert PathGenotype.model_validate(item["genotype"]) == path.genotype
        assert item["architecture"] == path.genotype.hash
    everything = api.get(f"/v1/trials/{trial_id}/paths?k=100").json()
    assert len(everything["items"]) == 100
    cheapest = min(item["parameters"] for item in everything["items"])

    within = api.get(f"/v1/trials/{trial_id}/paths?within_parameters={cheapest}").json()["within"]
    assert (within["measure"], within["budget"]) == ("parameters", cheapest)
    fitting = [item for item in everything["items"] if item["parameters"] <= cheapest]
    assert within["path"]["score"] >= max(item["score"] for item in fitting)
    assert within["path"]["parameters"] <= cheapest
    by_work = api.get(f"/v1/trials/{trial_id}/paths?within_multiply_adds=1000000").json()
    assert by_work["within"]["path"] == by_work["items"][0]

    refused = api.get(f"/v1/trials/{trial_id}/paths?within_parameters=10")
    assert refused.status_code == 422
    assert (
        "'within_parameters': no path of this cuboid fits 10 parameters: the cheapest has"
        in (refused.json()["detail"])
    )
    both = "within_parameters=10&within_multiply_adds=10"
    assert "give one of them" in api.get(f"/v1/trials/{trial_id}/paths?{both}").json()["detail"]
    for k in (0, 101):
        assert api.get(f"/v1/trials/{trial_id}/paths?k={k}").status_code == 422


def test_the_marginals_are_series_of_their_own(api: Api, worker: Worker, report: Report) -> None:
    _, trial_id = submit(api)
    lease = worker.claim()
    for step in (1, 2):
        report(lease, step)
    path = f"/v1/trials/{trial_id}/metrics"
    one = api.get(f"{path}?names=marginal.kernel_size=5").json()["series"]
    assert list(one) == ["marginal.kernel_size=5"]
    assert [point["step"] for point in one["marginal.kernel_size=5"]] == [1, 2]
    every = api.get(f"{path}?names=marginal.*").json()["series"]
    assert set(every) == set(marginals(weights_at(1), CUBOID))
    table = api.get(f"{path}?names=marginal.kernel_size*", headers={"Accept": "text/csv"}).text
    assert [line.split(",")[0] for line in table.splitlines()] == [
        "name",
        *["marginal.kernel_size=3"] * 2,
        *["marginal.kernel_size=5"] * 2,
    ]


def test_a_path_has_every_form_of_an_architecture(
    api: Api, worker: Worker, report: Report, engine: Engine
) -> None:
    search_id, _ = submit(api, trials={"seeds": [0]})
    lease = worker.claim()
    found = heaviest_path(report(lease, 3), CUBOID)
    with transaction(engine) as session:
        trial = searches.trials(session, lease.search_id)[0]
        recording.trial_succeeded(session, lease, trial.id, found)
        endings.finish(session, lease)
    (ranked,) = api.get(f"/v1/searches/{search_id}/architectures").json()["items"]
    assert (ranked["architecture"], ranked["recommended"]) == (found.hash, True)
    assert ranked["genotype"] == found.model_dump(mode="json")
    path = f"/v1/architectures/{found.hash}"
    answer = api.get(path).json()
    assert (answer["kind"], answer["text"]) == ("path", found.to_text())
    assert answer["found_by"][0]["family"] is None
    assert parse(api.get(f"{path}.json").text) == parse(api.get(f"{path}.txt").text) == found
    assert api.get(f"{path}.dot").text == paths.to_dot(found)
    shown = _texts(api.get(f"{path}.svg").content)
    assert {"image", "level 0", "stride 1", "stride 2", "16 channels"} <= set(shown)
    assert [text for text in shown if text in OPERATIONS] == [
        step.operation for step in found.steps
    ]
    refused = api.get(f"{path}.svg?cell=normal")
    assert refused.status_code == 422
    assert "a path, which has no cells" in refused.json()["detail"]


def test_the_picture_of_a_cuboid_has_every_operation_and_the_path(
    api: Api, worker: Worker, report: Report
) -> None:
    _, trial_id = submit(api)
    lease = worker.claim()
    weights = report(lease, 1)
    path = f"/v1/trials/{trial_id}/cuboid"
    picture = api.get(f"{path}.svg")
    assert picture.headers["content-type"] == "image/svg+xml"
    tips = [
        each.get("{http://www.w3.org/1999/xlink}title") or "" for each in _links(picture.content)
    ]
    operations = [tip for tip in tips if ": 0." in tip]
    assert len(operations) == 2 * len(CUBOID.operations)
    shown = _texts(picture.content)
    assert any("epoch 1 of 3: 32 operations" in text for text in shown)
    for position, step in enumerate(heaviest_path(weights, CUBOID).steps):
        assert step.operation in shown
        assert f"{max(weights[position]):.3f}" in shown
    assert api.get(f"{path}.dot").text == cuboids.to_dot(
        CUBOID, weights, heaviest_path(weights, CUBOID), "epoch 1 of 3"
    )
    known = {"If-None-Match": picture.headers["etag"]}
    assert api.get(f"{path}.svg", headers=known).status_code == 304
    report(lease, 2)
    assert api.get(f"{path}.svg", headers=known).status_code == 200


def test_the_largest_cuboid_is_drawn_without_its_lightest_operations() -> None:
    space = HyperCuboidSpace(
        kind="hypercuboid", axes={"channels": tuple(range(1, 65))}, levels=16, strides=(1,)
    )
    row = [float(index) for index in range(len(space.operations))]
    weights = [[weight / sum(row) for weight in row]] * 16
    dot = cuboids.to_dot(space, weights, heaviest_path(weights, space), "epoch 1 of 1")
    assert f"the heaviest 4,096 of {16 * len(space.operations):,} operations" in dot
    assert b"<svg" in rendering._render(dot)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_has_a_colour_that_reads_on_white(operation: str) -> None:
    color = grid.color_of(operation)
    parts = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    red, green, blue = (part**2.2 for part in parts)
    assert 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05) >= 4.5
    assert color != INK


def _texts(svg: bytes) -> list[str]:
    return ["".join(text.itertext()) for text in ET.fromstring(svg).iter(f"{SVG}text")]


def _links(svg: bytes) -> list[ET.Element]:
    return [*ET.fromstring(svg).iter(f"{SVG}a")]

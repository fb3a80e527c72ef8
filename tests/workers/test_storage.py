"""Searches on a storage of every kind, one that breaks, and what must not be in their logs."""

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, make_url

from search_core.storage import Storage
from store import verbs
from store.artifacts import checkpoints_of, logs_of
from store.epoch_reports import EpochResult
from store.sessions import transaction
from store.states import Reason
from tests.contracts import epochs, names
from tests.s3 import SECRET_KEY, S3Server
from tests.workers.conftest import RayCluster, Record, Start, hold, wait_until
from tests.workers.test_runner import claim
from workers.recording import StoreSink
from workers.runner import run
from workers.settings import WorkerSettings

Submit = Callable[..., UUID]
Recorder = Callable[[UUID], Record]

EPOCHS = 25
DATABASE_PASSWORD = "database-password-of-this-test"


class Breakable(Protocol):
    """A storage that can be out of order."""

    root: str

    def break_(self) -> None: ...

    def mend(self) -> None: ...


class SmallDisk:
    """A disk of four mebibytes that is full to the last page while it is broken."""

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / "ballast"
        self.root = str(folder)

    def break_(self) -> None:
        with suppress(OSError), self._ballast.open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(4096))

    def mend(self) -> None:
        self._ballast.unlink()


class BreakableS3:
    """The server, gone while it is broken."""

    def __init__(self, server: S3Server) -> None:
        self._server = server
        self.root = server.url(str(uuid4()))

    def break_(self) -> None:
        self._server.go()

    def mend(self) -> None:
        self._server.come_back()


@pytest.fixture(params=["full disk", "s3 gone"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Breakable]:
    """A storage that works, and can be broken."""
    if request.param == "s3 gone":
        yield BreakableS3(request.getfixturevalue("s3_server"))
        return
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system")
    try:
        yield SmallDisk(disk)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


class _BreaksTheStorage(StoreSink):
    """A sink beside which the storage breaks when the first epoch is recorded."""

    storage: Breakable
    is_broken = False

    def epoch_ended(self, trial_id: UUID, result: EpochResult) -> None:
        super().epoch_ended(trial_id, result)
        if not self.is_broken:
            self.is_broken = True
            self.storage.break_()


def test_a_storage_that_is_full_or_gone_fails_the_trial_and_loses_nothing(
    engine: Engine,
    settings: WorkerSettings,
    submit: Submit,
    record: Recorder,
    storage: Breakable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = submit(training={"epochs": 3})
    assert run(engine, claim(engine), settings) == "succeeded"
    settings = settings.model_copy(update={"storage": storage.root, "trial_failures": 1})
    search_id = submit(training={"epochs": 3})
    with monkeypatch.context() as patched:
        patched.setattr(_BreaksTheStorage, "storage", storage, raising=False)
        patched.setattr("workers.runner.StoreSink", _BreaksTheStorage)
        try:
            status = run(engine, claim(engine), settings)
        finally:
            storage.mend()
    after = record(search_id)
    assert (status, after.search.reason) == ("failed", Reason.STORAGE_UNAVAILABLE)
    (trial,) = after.trials
    assert trial.reason == Reason.STORAGE_UNAVAILABLE
    assert "Earlier checkpoints are untouched" in trial.message
    assert after.kinds.count("trial.interrupted") == 1
    (interrupted,) = (each for each in after.events if each.kind == "trial.interrupted")
    assert "full or gone" in interrupted.data["message"]
    checkpoints = (checkpoints_of(storage.root, search_id) / "trial-0").open()
    assert epochs(checkpoints) == [1]

    with transaction(engine) as session:
        verbs.retry_trial(session, trial.id)
    assert run(engine, claim(engine), settings) == "succeeded"
    after = record(search_id)
    started = [event.data["from_epoch"] for event in after.events if event.kind == "trial.started"]
    assert started[-1] == 1
    assert [event.data["epoch"] for event in after.events if event.kind == "trial.epoch"] == [
        *range(1, 4)
    ]
    assert after.search.recommended_hash == record(whole).search.recommended_hash


def test_the_last_two_epochs_and_the_best_are_kept(
    engine: Engine, settings: WorkerSettings, submit: Submit, record: Recorder
) -> None:
    search_id = submit(training={"epochs": 8})
    run(engine, claim(engine), settings)
    after = record(search_id)
    accuracies = {
        event.data["epoch"]: event.data["metrics"]["validation_accuracy"]
        for event in after.events
        if event.kind == "trial.epoch"
    }
    best = max(accuracies, key=lambda epoch: (accuracies[epoch], -epoch))
    checkpoints = (checkpoints_of(settings.storage_root, search_id) / "trial-0").open()
    assert epochs(checkpoints) == sorted({best, 7, 8})


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> WorkerSettings:
    """Settings with a password in the database's URL, which the embedded server does not ask."""
    url = make_url(database_url).set(password=DATABASE_PASSWORD)
    return WorkerSettings(
        database_url=url.render_as_string(hide_password=False), home=tmp_path, executor="inline"
    )


def check_no_secrets(home: Path, logs: list[Storage], secrets: Mapping[str, str]) -> None:
    """Greps every log of a deployment, on its dispatcher's host and in the storage."""
    texts = {str(file): file.read_text() for file in home.rglob("*.log")}
    assert any("runners" in name for name in texts)
    for storage in logs:
        texts |= {f"{storage.where}/{name}": storage.read(name).decode() for name in names(storage)}
    for where, text in texts.items():
        for what, secret in secrets.items():
            assert secret, what
            assert secret not in text, f"{what} is in {where}"


def disturb(
    settings: WorkerSettings, submit: Submit, record: Recorder, root: str, **fields: Any
) -> tuple[UUID, dict[str, str]]:
    """Runs a search whose runner is killed after some epochs; gives it, and its lease tokens."""
    search_id = submit(training={"epochs": EPOCHS}, **fields)
    wait_until(lambda: record(search_id).kinds.count("trial.epoch") >= 2)
    tokens = {"the first lease": str(record(search_id).search.lease_token)}
    runner = hold(settings, search_id)
    runner.kill()
    wait_until(lambda: record(search_id).search.attempt == 2)
    wait_until(lambda: "trial.started" in record(search_id).kinds)
    if token := record(search_id).search.lease_token:
        tokens["the second lease"] = str(token)
    wait_until(lambda: record(search_id).search.status == "succeeded")
    # The dispatcher copies the end of a runner's log beside its other work.
    logs = logs_of(root, search_id).open()
    wait_until(lambda: b"succeeded" in read(logs, "runner-attempt-2.log"))
    return search_id, tokens


def read(logs: Storage, name: str) -> bytes:
    try:
        return logs.read(name)
    except FileNotFoundError:
        return b""


def check_the_same(disturbed: Record, undisturbed: Record) -> None:
    """One search was disturbed, the other was not: that is all the difference."""
    assert (undisturbed.search.attempt, disturbed.search.attempt) == (1, 2)
    assert [trial.architecture_hash for trial in disturbed.trials] == [
        trial.architecture_hash for trial in undisturbed.trials
    ]
    resumed = [event for event in disturbed.events if event.kind == "trial.started"]
    # Of two trials, one may have had no epoch yet.
    assert max(event.data["from_epoch"] for event in resumed) >= 1
    for trial in disturbed.trials:
        trained = [
            event.data["epoch"]
            for event in disturbed.events
            if event.kind == "trial.epoch" and event.trial_id == trial.id
        ]
        assert trained == list(range(1, EPOCHS + 1))


def test_a_killed_runner_goes_on_from_an_object_store(
    settings: WorkerSettings,
    start: Start,
    submit: Submit,
    record: Recorder,
    s3_server: S3Server,
) -> None:
    root = s3_server.url(str(uuid4()))
    start(DARTBOARD_STORAGE=root)
    undisturbed = submit(training={"epochs": EPOCHS})
    wait_until(lambda: record(undisturbed).search.status == "succeeded")
    disturbed, tokens = disturb(settings, submit, record, root)
    check_the_same(record(disturbed), record(undisturbed))
    assert not (settings.home / "checkpoints").exists()
    logs = logs_of(root, disturbed).open()
    assert names(logs) == ["runner-attempt-1.log", "runner-attempt-2.log"]
    # The first runner was killed: its dispatcher has kept what it wrote.
    assert b"epoch 2 of 25" in logs.read("runner-attempt-1.log")
    local = settings.home / "logs" / "runners" / f"{disturbed}-2.log"
    assert logs.read("runner-attempt-2.log") == local.read_bytes()
    check_no_secrets(
        settings.home,
        [logs],
        {**tokens, "the database": DATABASE_PASSWORD, "the storage": SECRET_KEY},
    )


def test_a_runner_keeps_its_log_without_its_dispatcher(
    settings: WorkerSettings, start: Start, submit: Submit, record: Recorder
) -> None:
    dispatcher = start()
    search_id = submit(training={"epochs": 6})
    wait_until(lambda: "trial.epoch" in record(search_id).kinds)
    dispatcher.kill()
    wait_until(lambda: record(search_id).search.status == "succeeded")
    logs = logs_of(settings.storage_root, search_id).open()
    wait_until(lambda: b"succeeded" in read(logs, "runner-attempt-1.log"))


@pytest.mark.ray
def test_ray_trials_go_on_from_an_object_store_and_their_logs_stay(
    settings: WorkerSettings,
    start: Start,
    submit: Submit,
    record: Recorder,
    s3_server: S3Server,
    ray_cluster: RayCluster,
) -> None:
    """The credentials are in the URL, as an operator may do who has no other way."""
    root = s3_server.url(str(uuid4()), credentials=True)
    start(
        DARTBOARD_EXECUTOR="ray",
        DARTBOARD_RAY_ADDRESS=ray_cluster.address,
        DARTBOARD_STORAGE=root,
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=str(ray_cluster.home / "run" / "ray-token"),
    )
    undisturbed = submit(training={"epochs": EPOCHS}, trials={"seeds": [0, 1]})
    wait_until(lambda: record(undisturbed).search.status == "succeeded")
    disturbed, tokens = disturb(settings, submit, record, root, trials={"seeds": [0, 1]})
    check_the_same(record(disturbed), record(undisturbed))
    logs = logs_of(root, disturbed).open()
    assert {"runner-attempt-2.log", "trial-0-attempt-2.log", "trial-1-attempt-2.log"} <= {
        *names(logs)
    }
    for number in (0, 1):
        text = read(logs, f"trial-{number}-attempt-2.log").decode()
        assert f"trial {number}, seed {number}, at epoch" in text
        assert f"trial {number}, epoch {EPOCHS} of {EPOCHS}: train_loss" in text
    # And what they write still reaches the runner's; of lines that look alike, Ray keeps one.
    assert re.search(rb"trial [01], epoch", logs.read("runner-attempt-2.log"))
    check_no_secrets(
        settings.home,
        [logs, logs_of(root, undisturbed).open()],
        {
            **tokens,
            "the database": DATABASE_PASSWORD,
            "the storage": SECRET_KEY,
            "Ray": (ray_cluster.home / "run" / "ray-token").read_text(),
        },
    )

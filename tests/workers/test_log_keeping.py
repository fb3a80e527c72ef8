"""Copies of logs, and what a trial's process writes, kept in a storage."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from search_core.storage import Folder
from store.artifacts import ArtifactFolder
from tests.workers.conftest import wait_until
from workers import secrets
from workers.log_keeping import LogKeeper

NAME = "runner-attempt-1.log"
MEBIBYTE = 2**20


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log that somebody writes."""
    file = tmp_path / "some.log"
    file.touch()
    return file


@pytest.fixture
def source(log: Path) -> Iterator[int]:
    """Its descriptor."""
    descriptor = os.open(log, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def folder(tmp_path: Path) -> ArtifactFolder:
    """Where the copies go."""
    return ArtifactFolder(str(tmp_path / "storage")) / "logs"


def append(log: Path, content: bytes) -> None:
    with log.open("ab") as stream:
        stream.write(content)


def test_a_log_is_copied_as_it_grows_and_when_it_ends(
    log: Path, source: int, folder: ArtifactFolder
) -> None:
    storage = folder.open()
    with LogKeeper(source, folder, [NAME]):
        append(log, b"one\n")
        wait_until(lambda: storage.list())
        assert storage.read(NAME) == b"one\n"
        append(log, b"two\n")
        wait_until(lambda: storage.read(NAME) == b"one\ntwo\n")
        append(log, b"the last words\n")
    assert storage.read(NAME) == b"one\ntwo\nthe last words\n"


def test_what_does_not_grow_is_not_written_again(
    log: Path, source: int, folder: ArtifactFolder
) -> None:
    keeper = LogKeeper(source, folder, [NAME])
    append(log, b"one\n")
    keeper.keep()
    folder.open().delete(NAME)
    keeper.keep()
    assert folder.open().list() == []


def test_secrets_are_not_copied(log: Path, source: int, folder: ArtifactFolder) -> None:
    keeper = LogKeeper(source, folder, [NAME], secrets={"hunter2", "hunter2-and-more"})
    append(log, b"the password is hunter2, or hunter2-and-more\n")
    keeper.keep()
    assert folder.open().read(NAME) == b"the password is ***, or ***\n"


def test_of_a_long_log_the_end_is_kept(log: Path, source: int, folder: ArtifactFolder) -> None:
    keeper = LogKeeper(source, folder, [NAME])
    append(log, b"the first line\n" + b"x" * 4 * MEBIBYTE + b"\nthe last line\n")
    keeper.keep()
    content = folder.open().read(NAME)
    assert content.startswith(b"[30 bytes before this are not kept]\nx")
    assert content.endswith(b"x\nthe last line\n")
    assert len(content) < 4 * MEBIBYTE + 100


def test_a_process_goes_on_with_the_log_of_the_one_before_it(
    log: Path, source: int, folder: ArtifactFolder
) -> None:
    stacked = ["trial-0-attempt-1.log", "trial-1-attempt-1.log"]
    storage = folder.open()
    storage.write(stacked[0], b"of the process before\n")
    keeper = LogKeeper(source, folder, stacked, continues=True)
    for line in (b"one\n", b"two\n"):
        append(log, line)
        keeper.keep()
    assert storage.read(stacked[0]) == b"of the process before\none\ntwo\n"
    assert storage.read(stacked[1]) == b"one\ntwo\n"


def test_a_storage_that_is_away_is_told_once_and_made_up_for(
    tmp_path: Path, log: Path, source: int, caplog: pytest.LogCaptureFixture
) -> None:
    before = Folder(tmp_path / "storage" / "logs")
    before.write(NAME, b"of the process before\n")
    away = tmp_path / "away"
    (tmp_path / "storage").rename(away)
    (tmp_path / "storage").write_text("a file where a folder should be")
    folder = ArtifactFolder(str(tmp_path / "storage")) / "logs"
    keeper = LogKeeper(source, folder, [NAME], continues=True)
    with caplog.at_level(logging.WARNING):
        for line in (b"one\n", b"two\n"):
            append(log, line)
            keeper.keep()
    assert caplog.text.count("this log is not kept for now") == 1
    (tmp_path / "storage").unlink()
    away.rename(tmp_path / "storage")
    keeper.keep()
    assert before.read(NAME) == b"of the process before\none\ntwo\n"


def test_the_secrets_of_a_process_are_those_of_its_urls_and_variables(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("token-of-ray\n")
    environment = {
        "RAY_AUTH_TOKEN_PATH": str(token),
        "AWS_SECRET_ACCESS_KEY": "secret-of-aws",
        "DARTBOARD_HOME": "no-secret",
        "DARTBOARD_LEASE_TOKEN": "",
    }
    assert secrets.known(
        "postgresql://user:p%40ssword@host/database", "/a/folder", None, environment=environment
    ) == {"token-of-ray", "secret-of-aws", "p%40ssword", "p@ssword"}
    missing = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "missing")}
    assert secrets.known(environment=missing) == set()


TRIAL = """
import logging, os, subprocess, sys, time
from pathlib import Path
from store.artifacts import ArtifactFolder
from workers.trial_output import TrialOutput, log_to_stderr
output = TrialOutput(ArtifactFolder(sys.argv[1], "logs"), ["trial-0-attempt-1.log"])
log_to_stderr()
print("printed")
os.write(1, b"written\\n")
logging.getLogger("workers.trial_group").info("logged")
subprocess.run(["echo", "of a child"])
"""


def start_trial(root: Path, then: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-u", "-c", TRIAL + then, str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def check_lines(text: str) -> None:
    printed, written, logged, of_a_child = text.splitlines()[:4]
    assert (printed, written, of_a_child) == ("printed", "written", "of a child")
    assert logged.endswith("INFO workers.trial_group logged")


def test_all_that_a_trials_process_writes_is_kept_and_handed_on(tmp_path: Path) -> None:
    trial = start_trial(tmp_path, "output.close()\nprint('after it')")
    out, err = trial.communicate(timeout=60)
    assert trial.returncode == 0
    assert out == "after it\n"
    check_lines(err)
    check_lines(Folder(tmp_path / "logs").read("trial-0-attempt-1.log").decode())


def test_of_a_trial_that_is_killed_all_but_the_last_seconds_is_kept(tmp_path: Path) -> None:
    trial = start_trial(tmp_path, "time.sleep(600)")
    storage = Folder(tmp_path / "logs")

    def is_kept() -> bool:
        with suppress(FileNotFoundError):
            return b"of a child" in storage.read("trial-0-attempt-1.log")
        return False

    wait_until(is_kept)
    trial.kill()
    trial.communicate()
    check_lines(storage.read("trial-0-attempt-1.log").decode())

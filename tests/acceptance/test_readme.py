"""Does what the README says, word for word, in a fresh copy of the project.

The copy is installed by the README's own first command. Of all that is typed only the port is
another one, so that whatever else listens on this machine is not disturbed.
"""

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).resolve().parents[2]
STAND_INS = Path(__file__).parent / "stand_ins"
"""What the README types that a machine with only Python and make may lack."""
WRITTEN_ADDRESS = "127.0.0.1:8000"


def copy_of_the_project(target: Path) -> None:
    """Copies what git would: the tracked files, and new ones that it does not ignore."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        made = (".venv", ".tools", ".dartboard", ".*_cache", "__pycache__", ".bootstrap-lock")
        shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*made), dirs_exist_ok=True)
        return
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        if source.is_file():  # not one that was deleted and not committed yet
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Newcomer:
    """Somebody who types the README's blocks, in the folder of a fresh clone."""

    folder: Path
    port: int

    def blocks(self) -> list[tuple[str, str]]:
        """Language and text of the README's runnable blocks, in order."""
        text = (self.folder / "README.md").read_text()
        return re.findall(r"^```(sh|python)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)

    def type(self, language: str, text: str) -> str:
        """Runs a block and gives what it printed."""
        text = text.replace(WRITTEN_ADDRESS, f"127.0.0.1:{self.port}")
        command = ["sh", "-eu"] if language == "sh" else [".venv/bin/python"]
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("DARTBOARD_", "RAY_", "VIRTUAL_ENV", "PYTEST_"))
        }
        environment["DARTBOARD_PORT"] = str(self.port)
        if shutil.which("curl") is None:
            environment["PATH"] = f"{STAND_INS}{os.pathsep}{environment['PATH']}"
        result = subprocess.run(
            command,
            input=text,
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=480,
            check=False,
        )
        assert result.returncode == 0, f"{text}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
        return result.stdout

    def processes(self) -> list[psutil.Process]:
        """Whatever still runs out of this folder."""
        here = str(self.folder)
        found = []
        for process in psutil.process_iter(["cmdline", "cwd", "status"]):
            command = " ".join(process.info["cmdline"] or [])
            if process.info["status"] != psutil.STATUS_ZOMBIE and (
                here in command or str(process.info["cwd"] or "").startswith(here)
            ):
                found.append(process)
        return found


@pytest.fixture(scope="module")
def newcomer() -> Iterator[Newcomer]:
    # Beside the project, on the same file system, so that the installer can link what it has.
    with tempfile.TemporaryDirectory(
        prefix="readme-", dir=ROOT.parent, ignore_cleanup_errors=True
    ) as name:
        folder = Path(name) / "dartboard"
        copy_of_the_project(folder)
        Path(name).chmod(0o755)
        newcomer = Newcomer(folder, free_port())
        yield newcomer
        for process in newcomer.processes():
            process.kill()


@pytest.mark.timeout(3000)  # each block has a limit of its own
def test_the_readme_does_what_it_says(newcomer: Newcomer) -> None:
    printed = [(text, newcomer.type(language, text)) for language, text in newcomer.blocks()]
    output = dict(printed)
    commands = "\n".join(output)
    for expected in ("make demo", "dartboard up", "text/event-stream", "Client()", "down"):
        assert expected in commands, f"the README no longer shows {expected!r}"

    demo = output["make demo\n"]
    assert demo.count("Genotype(") >= 2
    accuracy = re.search(r"highest validation accuracy .*: (0\.\d+)", demo)
    assert accuracy is not None
    assert float(accuracy[1]) >= 0.90
    for cell in ("normal", "reduce"):
        ElementTree.parse(newcomer.folder / "demo" / f"{cell}.svg")

    stream = next(text for command, text in printed if "text/event-stream" in command)
    assert "event: search.succeeded" in stream
    assert "event: trial.epoch" in stream
    python = next(text for command, text in printed if "Client()" in command)
    assert "search.succeeded" in python
    assert "Genotype(normal=[" in python
    assert b"</svg>" in (newcomer.folder / "cell.svg").read_bytes()
    assert newcomer.processes() == []


def test_installing_again_changes_nothing(newcomer: Newcomer) -> None:
    stamp = newcomer.folder / ".venv" / ".dartboard-installed"
    before = stamp.stat().st_mtime_ns
    newcomer.type("sh", "make install")
    assert stamp.stat().st_mtime_ns == before

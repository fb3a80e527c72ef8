"""Installs Dartboard into .venv: finds or fetches uv, then installs requirements.lock with hashes.

Only the standard library, Python 3.11 or later. Running it again does nothing when nothing
changed; running it twice at once makes the second wait for the first.
"""

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
TOOLS = ROOT / ".tools"
LOCK = ROOT / "requirements.lock"
SERVICE_LOCK = ROOT / "requirements-service.lock"
STAMP = VENV / ".dartboard-installed"
UV_REQUIREMENT = "uv>=0.9"
OLDEST, NEWEST = (3, 11), (3, 13)


class InstallError(Exception):
    """The installation cannot go on; the message says what to do."""


def main() -> int:
    """Installs, or writes the lock again.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lock", action="store_true", help="write requirements.lock again")
    arguments = parser.parse_args()
    try:
        check_python()
        with alone():
            if arguments.lock:
                write_lock(find_uv())
            elif STAMP.exists() and STAMP.read_text() == fingerprint():
                return 0
            else:
                install(find_uv())
    except InstallError as error:
        print(f"\ninstall: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninstall: stopped; run it again to go on", file=sys.stderr)
        return 130
    return 0


def check_python() -> None:
    """Refuses a Python that some dependency has no wheel for."""
    version = sys.version_info[:2]
    if not OLDEST <= version <= NEWEST:
        raise InstallError(
            f"this is Python {version[0]}.{version[1]}, and Dartboard runs on "
            f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}. "
            "Name another one: make PYTHON=/path/to/python3"
        )


@contextmanager
def alone() -> Iterator[None]:
    """Keeps two installations into the same folder apart."""
    import fcntl

    with (ROOT / ".bootstrap-lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("install: another one is at work here; waiting for it", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fingerprint() -> str:
    """Changes when what is installed would change."""
    digest = hashlib.sha256()
    for part in (LOCK.read_bytes(), (ROOT / "pyproject.toml").read_bytes(), sys.version.encode()):
        digest.update(hashlib.sha256(part).digest())
    # A copied folder has a .venv whose commands point at the original.
    digest.update(str(ROOT).encode())
    return digest.hexdigest()


def find_uv() -> list[str]:
    """The command line that runs uv: the installed one, or one fetched into .tools with pip."""
    installed = shutil.which("uv")
    if installed is not None:
        return [installed]
    local = TOOLS / "bin" / "uv"
    if not local.exists():
        step("fetching uv, the installer", fetch_uv_command(), "uv could not be fetched with pip")
    if not local.exists():
        raise InstallError(f"pip put no uv into {TOOLS}; install uv yourself and run this again")
    return [str(local)]


def fetch_uv_command() -> list[str]:
    """The pip command that fetches uv; makes a pip first where this Python has none."""
    python = sys.executable
    if importlib.util.find_spec("pip") is None:
        if importlib.util.find_spec("ensurepip") is None:
            raise InstallError(
                "this Python has neither pip nor ensurepip. Install one of them (on Debian: "
                "apt-get install python3-venv) or uv, and run this again"
            )
        step(
            "making a pip",
            [python, "-m", "venv", str(TOOLS / "pip")],
            "this Python cannot make a virtual environment; install uv, or on Debian: "
            "apt-get install python3-venv",
        )
        python = str(TOOLS / "pip" / "bin" / "python")
    quiet = ["--quiet", "--disable-pip-version-check", "--no-warn-script-location"]
    return [python, "-m", "pip", "install", *quiet, "--target", str(TOOLS), "--upgrade",
            UV_REQUIREMENT]  # fmt: skip


def install(uv: list[str]) -> None:
    """Makes .venv what the lock says, and puts this project into it."""
    STAMP.unlink(missing_ok=True)
    pip = [*uv, "pip"]
    hint = (
        "the lines above say what failed. Often it is the network (behind a proxy with a "
        "certificate of its own: UV_SYSTEM_CERTS=1 make install) or a full disk (about 7 GB are "
        "needed). `make clean` and another try start afresh"
    )
    step(
        "making .venv",
        [*uv, "venv", "--quiet", "--allow-existing", "--no-project", "--python", sys.executable,
         str(VENV)],
        hint,
    )  # fmt: skip
    python = str(VENV / "bin" / "python")
    # Compiled at once, on all cores: where Python may write no bytecode itself, every process would
    # compile PyTorch anew, for 2 s.
    step(
        "installing the locked dependencies (torch is large)",
        [*pip, "sync", "--quiet", "--compile-bytecode", "--python", python, "--require-hashes",
         str(LOCK)],
        hint,
    )  # fmt: skip
    step(
        "installing dartboard itself",
        [*pip, "install", "--quiet", "--python", python, "--no-deps", "--no-build-isolation",
         "--editable", str(ROOT)],
        hint,
    )  # fmt: skip
    STAMP.write_text(fingerprint())


def write_lock(uv: list[str]) -> None:
    """Resolves every extra for every platform, and of that what the service alone needs."""
    compile_lock(uv, LOCK, "dev", ["--upgrade"])
    compile_lock(uv, SERVICE_LOCK, "service", ["--constraint", str(LOCK)])


def compile_lock(uv: list[str], lock: Path, extra: str, options: list[str]) -> None:
    """Writes one lock file; no index address gets into it."""
    step(
        f"resolving {lock.name}",
        [*uv, "pip", "compile", "--quiet", "--universal", "--python-version", "3.11",
         "--generate-hashes", "--no-emit-index-url", "--no-emit-find-links", "--no-header",
         "--no-annotate", "--extra", extra, "--output-file", str(lock), *options,
         str(ROOT / "pyproject.toml")],
        "no set of versions satisfies pyproject.toml; the lines above say why",
    )  # fmt: skip
    header = "# Written by `make lock`; do not edit. Every dependency, with hashes.\n"
    lock.write_text(header + lock.read_text())


def step(title: str, command: list[str], hint: str) -> None:
    """Runs one command under a line that shows how long it has been at it."""
    if command[0].endswith("uv"):
        # The Python that runs this is the one to use; uv would download another.
        # On a slow disk a file may take longer to compile than it allows by default.
        environment = {"UV_COMPILE_BYTECODE_TIMEOUT": "600", **os.environ}
        environment["UV_PYTHON_DOWNLOADS"] = "never"
    else:
        environment = dict(os.environ)
    with progress(title):
        try:
            result = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise InstallError(f"{command[0]} cannot be run: {error}") from error
    if result.returncode:
        sys.stderr.write("\n" + (result.stderr or result.stdout))
        raise InstallError(f"{title}: {hint}")


@contextmanager
def progress(title: str) -> Iterator[None]:
    """A line that counts the seconds on a terminal, and is printed once elsewhere."""
    started = time.monotonic()
    done = threading.Event()
    live = sys.stderr.isatty()

    def show() -> None:
        while not done.wait(0.5):
            if live:
                print(f"\rinstall: {title} ... {time.monotonic() - started:.0f} s", end="",
                      file=sys.stderr, flush=True)  # fmt: skip

    print(f"install: {title} ...", end="" if live else "\n", file=sys.stderr, flush=True)
    thread = threading.Thread(target=show)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if live:
            print(f"\rinstall: {title} ... {time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

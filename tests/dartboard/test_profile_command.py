"""`dartboard profile`, with the process that counts."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dartboard.cli import main
from search_core import published

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def profile(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Runs the command in a folder of its own: exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main(["profile", *(str(argument) for argument in arguments)])
        return code, *capsys.readouterr()

    return run


def counts(said: tuple[int, str, str]) -> dict[str, int]:
    code, out, err = said
    assert (code, err) == (0, "")
    values: dict[str, int] = json.loads(out)
    assert set(values) == {"parameters", "multiply_adds", "paper_multiply_adds"}
    return values


def test_a_published_name_with_everything_said(profile: Run) -> None:
    sizes = ("--channels", 36, "--cells", 20, "--classes", 10, "--image-size", 32)
    said = profile("DARTS_V2", "--form", "cifar", "--family", "sharp", *sizes, "--json")
    found = counts(said)
    assert found["parameters"] == 3_529_270
    assert f"{found['paper_multiply_adds'] / 1e6:.3f}" == "576.006"
    assert found["multiply_adds"] < found["paper_multiply_adds"]


def test_a_file_in_either_form_and_stdin(
    profile: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genotype = published.get("DARTS_V2").genotype
    (tmp_path / "text").write_text(genotype.to_text())
    monkeypatch.setattr(sys, "stdin", io.StringIO(genotype.to_json()))
    small = ("--channels", 4, "--cells", 3, "--image-size", 8, "--image-channels", 1, "--json")
    assert counts(profile("text", *small)) == counts(profile("-", *small))


def test_for_people_with_the_forms_sizes_and_the_published_family(profile: Run) -> None:
    code, out, _ = profile("SHARPSEPCONV_DARTS", "--form", "imagenet")
    assert code == 0
    parameters, multiply_adds, paper_multiply_adds = out.splitlines()
    assert parameters.split() == ["parameters", "4,973,728"]
    assert multiply_adds.startswith("multiply-adds  ")
    assert paper_multiply_adds.startswith("multiply-adds as the paper counts  ")
    assert "572,981," in paper_multiply_adds


def test_a_path_by_its_published_name_and_from_a_file(profile: Run, tmp_path: Path) -> None:
    found = counts(profile("HYPERCUBOID_HANDMADE", "--json"))
    assert (found["parameters"], found["multiply_adds"]) == (1_035_882, 15_142_400)
    assert found["paper_multiply_adds"] == 15_714_816
    genotype = published.get("HYPERCUBOID_HANDMADE").genotype
    (tmp_path / "text").write_text(genotype.to_text())
    assert counts(profile("text", "--json")) == found
    smaller = ("--classes", 5, "--image-size", 1, "--image-channels", 1, "--json")
    assert counts(profile("text", *smaller))["parameters"] == 1_035_882 - 5 * 769 - 2 * 32 * 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("HYPERCUBOID_SCALAR", "--cells", 3), "HYPERCUBOID_SCALAR is a path, which says all of"),
        (("HYPERCUBOID_SCALAR", "--form", "cifar", "--channels", 4), "out --form, --channels"),
        (("HYPERCUBOID_SCALAR", "--family", "darts"), "leave out --family"),
        (("DARTS_V3",), "neither a file nor a published architecture; those are: NASNET_A"),
        (("bad",), "bad: node 0"),
        (("binary",), "binary cannot be read"),
        ((".",), "cannot be read"),
        (("DARTS_V2", "--image-size", 3), "too small"),
        (("DARTS_V2", "--form", "imagenet", "--channels", 1), "it needs 2 or more"),
        (("DARTS_V2", "--form", "mnist"), "'mnist' is not one of"),
        (("DARTS_V2", "--cells", 0), "--cells"),
    ],
)
def test_what_cannot_be_profiled(
    profile: Run, tmp_path: Path, arguments: tuple[Any, ...], message: str
) -> None:
    bad = published.get("DARTS_V2").genotype.to_text().replace("('sep_conv_3x3', 0)", "('none', 7)")
    (tmp_path / "bad").write_text(bad)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xfd")
    code, out, err = profile(*arguments, "--json")
    assert (code, out) == (2, "")
    answer = json.loads(err)
    assert answer["error"] == "usage"
    assert message.removeprefix("bad: ") in answer["message"]


def test_without_torch_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")")
    done = subprocess.run(
        [sys.executable, "-m", "dartboard", "profile", "DARTS_V2"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "No module named 'torch'; install it with" in done.stderr


def test_a_process_that_breaks_off_is_told(profile: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "no number")
    code, out, err = profile("DARTS_V2")
    assert (code, out) == (1, "")
    assert "the process that profiles broke off" in err

import io
import json
import sys
from typing import Any

import pytest

from search_core import profile_command, published

REQUEST = {
    "genotype": published.get("SHARP_DARTS").genotype.to_json(),
    "form": "cifar",
    "family": "sharp",
    "channels": 36,
    "cells": 20,
    "classes": 10,
    "image_shape": [3, 32, 32],
}


def ask(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **changes: Any
) -> tuple[int, dict[str, Any]]:
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({**REQUEST, **changes})))
    code = profile_command.main()
    return code, json.loads(capsys.readouterr().out)


def test_counts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, answer = ask(monkeypatch, capsys)
    assert code == 0
    assert answer["parameters"] == 1_974_934
    assert f"{answer['paper_multiply_adds'] / 1e6:.3f}" == "356.729"


def test_counts_of_a_path_need_no_torch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    request = {
        "genotype": published.get("HYPERCUBOID_HANDMADE").genotype.to_json(),
        "classes": 10,
        "image_shape": [3, 32, 32],
    }
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(request)))
    monkeypatch.setitem(sys.modules, "torch", None)
    assert profile_command.main() == 0
    assert json.loads(capsys.readouterr().out) == {
        "parameters": 1_035_882,
        "multiply_adds": 15_142_400,
        "paper_multiply_adds": 15_714_816,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "darts"}, "no primitive 'choke_conv_3x3' in family 'darts'"),
        ({"image_shape": [3, 3, 32]}, "too small"),
        ({"form": "imagenet", "image_shape": [3, 24, 24]}, "too small"),
        ({"genotype": "{}"}, "normal: Field required"),
    ],
)
def test_what_is_wrong_is_answered(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    message: str,
) -> None:
    code, answer = ask(monkeypatch, capsys, **changes)
    assert (code, answer["error"]) == (1, "invalid")
    assert message in answer["message"]

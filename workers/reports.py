"""An epoch's result as plain values: between a trial's node and its runner, and in checkpoints."""

from typing import Any

from search_core.genotype import parse
from store.recording import EpochResult


def to_report(result: EpochResult) -> dict[str, Any]:
    """The result as numbers, strings and dicts."""
    return {
        "epoch": result.epoch,
        "metrics": dict(result.metrics),
        "genotype": result.genotype.to_json(),
    }


def from_report(report: dict[str, Any]) -> EpochResult:
    """The result that `to_report` made plain."""
    return EpochResult(report["epoch"], report["metrics"], parse(report["genotype"]))

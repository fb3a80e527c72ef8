"""An epoch's result as plain values: between a trial's node and its runner, and in checkpoints."""

from typing import Any

from search_core.genotype import parse
from store.epoch_reports import EpochResult, EpochWarning


def to_report(result: EpochResult) -> dict[str, Any]:
    """The result as numbers, strings and dicts."""
    return {
        "epoch": result.epoch,
        "metrics": dict(result.metrics),
        "genotype": result.genotype.to_json(),
        "warnings": [[warning.kind, warning.message] for warning in result.warnings],
        "alphas": dict(result.alphas),
        "relaxation": result.relaxation,
    }


def from_report(report: dict[str, Any]) -> EpochResult:
    """The result that `to_report` made plain."""
    warnings = tuple(EpochWarning(kind, message) for kind, message in report["warnings"])
    return EpochResult(
        report["epoch"],
        report["metrics"],
        parse(report["genotype"]),
        warnings,
        report["alphas"],
        report["relaxation"],
    )

"""Dartboard's client: submit architecture searches, follow them, fetch what they found.

from dartboard import Client

with Client() as client:
    search = client.submit(preset="digits-quick")
    search = client.wait(search.id)
    print(client.genotype(search.recommended.architecture).to_text())
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dartboard.client import Client
    from dartboard.errors import (
        ConflictError,
        DartboardError,
        FieldError,
        InvalidRequestError,
        InvalidSpecError,
        KeyRefusedError,
        LocalError,
        NotFoundError,
        ProblemError,
        ServerFailedError,
        ServerUnreachableError,
        UnexpectedAnswerError,
        WaitTimeoutError,
    )
    from dartboard.models import (
        AlphaSeries,
        Architecture,
        Discovery,
        DryRun,
        Event,
        EventPage,
        Log,
        Paths,
        Point,
        Preset,
        Queue,
        RankedArchitecture,
        Readiness,
        Recommendation,
        Search,
        SpaceSize,
        TestMeasurement,
        TestResult,
        Training,
        Trial,
        TrialCounts,
        Waiting,
    )

_HOMES = {
    "dartboard.client": ("Client",),
    "dartboard.errors": (
        "ConflictError",
        "DartboardError",
        "FieldError",
        "InvalidRequestError",
        "InvalidSpecError",
        "KeyRefusedError",
        "LocalError",
        "NotFoundError",
        "ProblemError",
        "ServerFailedError",
        "ServerUnreachableError",
        "UnexpectedAnswerError",
        "WaitTimeoutError",
    ),
    "dartboard.models": (
        "AlphaSeries",
        "Architecture",
        "Discovery",
        "DryRun",
        "Event",
        "EventPage",
        "Log",
        "Paths",
        "Point",
        "Preset",
        "Queue",
        "RankedArchitecture",
        "Readiness",
        "Recommendation",
        "Search",
        "SpaceSize",
        "TestMeasurement",
        "TestResult",
        "Training",
        "Trial",
        "TrialCounts",
        "Waiting",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AlphaSeries",
    "Architecture",
    "Client",
    "ConflictError",
    "DartboardError",
    "Discovery",
    "DryRun",
    "Event",
    "EventPage",
    "FieldError",
    "InvalidRequestError",
    "InvalidSpecError",
    "KeyRefusedError",
    "LocalError",
    "Log",
    "NotFoundError",
    "Paths",
    "Point",
    "Preset",
    "ProblemError",
    "Queue",
    "RankedArchitecture",
    "Readiness",
    "Recommendation",
    "Search",
    "ServerFailedError",
    "ServerUnreachableError",
    "SpaceSize",
    "TestMeasurement",
    "TestResult",
    "Training",
    "Trial",
    "TrialCounts",
    "UnexpectedAnswerError",
    "WaitTimeoutError",
    "Waiting",
    "__version__",
]

__version__ = version("dartboard")


def __getattr__(name: str) -> Any:
    # Loaded when first used, so that `dartboard --help` does not wait for the HTTP client.
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'dartboard' has no attribute {name!r}")


def __dir__() -> list[str]:
    # Without it, completion would not know what has not been loaded yet.
    return sorted(__all__)

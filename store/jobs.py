"""The specs that the queue takes, by the kind of the job that each describes."""

from collections.abc import Mapping
from typing import Any, Final

from search_core.spec import SearchSpec
from search_core.spec.retraining import RetrainingSpec
from store.states import JobKind

JobSpec = SearchSpec | RetrainingSpec

SPECS: Final[dict[JobKind, type[SearchSpec] | type[RetrainingSpec]]] = {
    JobKind.SEARCH: SearchSpec,
    JobKind.TRAINING: RetrainingSpec,
}


def kind_of(spec: JobSpec) -> JobKind:
    """The kind of job that a spec describes."""
    return JobKind.SEARCH if isinstance(spec, SearchSpec) else JobKind.TRAINING


def parse_spec(kind: JobKind, stored: Mapping[str, Any]) -> JobSpec:
    """The spec in a row.

    Raises:
        pydantic.ValidationError: It was stored by a version that understood other specs.
    """
    return SPECS[kind].model_validate(dict(stored), strict=False)

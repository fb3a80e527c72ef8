"""Derived architectures, addressed by their content."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Text, cast, select, true
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from search_core.genotype import Genotype
from search_core.spec import point_spec
from store import access
from store.access import Principal
from store.errors import NotFoundError
from store.jobs import parse_spec
from store.models import Architecture, Event, Search, Trial
from store.states import JobKind


@dataclass(frozen=True)
class Finding:
    """A trial that derived an architecture, with the search that it belongs to."""

    search: Search
    trial: Trial


def put(session: Session, genotype: Genotype) -> str:
    """Stores an architecture, once for each content.

    Returns:
        Its hash.
    """
    statement = insert(Architecture).values(
        hash=genotype.hash, kind=genotype.kind, genotype=genotype.model_dump(mode="json")
    )
    session.execute(statement.on_conflict_do_nothing())
    return genotype.hash


def get(session: Session, architecture_hash: str) -> Architecture:
    """The architecture with this hash.

    Raises:
        NotFoundError: There is none.
    """
    architecture = session.get(Architecture, architecture_hash)
    if architecture is None:
        raise NotFoundError("architecture", architecture_hash)
    return architecture


def findings(
    session: Session, architecture_hash: str, *, seen_by: Principal | None = None, limit: int = 50
) -> Sequence[Finding]:
    """The trials that derived it, the newest first; only of searches that `seen_by` sees."""
    rows = session.execute(
        select(Search, Trial)
        .join(Trial, Trial.search_id == Search.id)
        # The trials of a training have the architecture that they were given.
        .where(
            Trial.architecture_hash == architecture_hash,
            Search.kind == JobKind.SEARCH,
            true() if seen_by is None else access.sees(seen_by),
        )
        .order_by(Trial.id.desc())
        .limit(limit)
    )
    return [Finding(search, trial) for search, trial in rows]


def families(session: Session, architecture_hash: str) -> Sequence[str]:
    """The operation families of the searches that found it, each once, in alphabetical order.

    None for a path through a HyperCuboid, whose operations have no families.
    """
    found = (
        select(Search.spec, Trial.parameters)
        .join(Trial, Trial.search_id == Search.id)
        .where(Trial.architecture_hash == architecture_hash, Search.kind == JobKind.SEARCH)
    )
    varies = cast(Trial.parameters, Text).like('%"space%')
    family = Search.spec["space"]["family"].astext
    fixed = session.scalars(
        found.with_only_columns(family).where(~varies, family.is_not(None)).distinct()
    )
    varied = (
        family_of(spec, parameters) for spec, parameters in session.execute(found.where(varies))
    )
    return sorted({*fixed, *(each for each in varied if each is not None)})


def family_of(spec: Mapping[str, Any], parameters: Mapping[str, Any] | None) -> str | None:
    """The operation family of what a trial of a search searched; None where it has none.

    Args:
        spec: The search's, as it is stored.
        parameters: The trial's, which may vary the family, or the whole space.
    """
    space: Mapping[str, Any] = spec["space"]
    if any(path.split(".")[0] == "space" for path in parameters or ()):
        # Validated, because a space that is given as a whole may leave its family to its kind.
        point = point_spec(parse_spec(JobKind.SEARCH, spec), parameters or {})
        space = point.model_dump(mode="json")["space"]
    return space.get("family")


def last_derived(session: Session, trial: Trial) -> Architecture | None:
    """What a trial derived after its last recorded epoch; None before the first."""
    return session.scalars(
        select(Architecture)
        .join(Event, Event.data["genotype_hash"].astext == Architecture.hash)
        .where(
            Event.search_id == trial.search_id,
            Event.trial_id == trial.id,
            Event.kind == "trial.epoch",
        )
        .order_by(Event.number.desc())
        .limit(1)
    ).first()


def found_by_search(session: Session, search_id: UUID) -> Sequence[tuple[Trial, Architecture]]:
    """The trials of a search that derived an architecture, with it, by number."""
    rows = session.execute(
        select(Trial, Architecture)
        .join(Architecture, Architecture.hash == Trial.architecture_hash)
        .where(Trial.search_id == search_id)
        .order_by(Trial.number)
    )
    return [(trial, architecture) for trial, architecture in rows]

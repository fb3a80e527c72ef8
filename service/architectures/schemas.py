"""What the API says about architectures."""

from collections.abc import Sequence
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import JsonValue, TypeAdapter, WithJsonSchema

from search_core.genotype import Genotype
from service.schema_base import STANDS_FOR, Answer, Time
from store.architectures import Finding, family_of
from store.models import Architecture, Search, Trial
from store.states import TrialStatus

GenotypeJson = Annotated[dict[str, Any], WithJsonSchema({STANDS_FOR: "Genotype"})]


_ANY_KIND: TypeAdapter[Genotype] = TypeAdapter(Genotype)


def genotype_of(architecture: Architecture) -> Genotype:
    """The genotype in a row."""
    return _ANY_KIND.validate_python(architecture.genotype)


class FoundBy(Answer):
    """A trial that derived an architecture."""

    search_id: UUID
    """The trial's search."""
    search_name: str
    """That search's name."""
    trial_id: UUID
    """The trial."""
    trial_number: int
    """Its number within the search."""
    seed: int
    """Its seed."""
    family: str | None
    """Which operations the primitive names stood for; null of a path, whose operations have no
    families."""
    validation_accuracy: float | None
    """The validation accuracy after the last epoch: the supernet's, or the best finalist's."""

    @classmethod
    def of(cls, finding: Finding) -> Self:
        """The answer about a finding."""
        search, trial = finding.search, finding.trial
        return cls(
            search_id=search.id,
            search_name=search.name,
            trial_id=trial.id,
            trial_number=trial.number,
            seed=trial.seed,
            family=family_of(search.spec, trial.parameters),
            validation_accuracy=trial.metrics.get("validation_accuracy"),
        )


class ArchitectureAnswer(Answer):
    """An architecture, in both its forms, and where it was found."""

    hash: str
    """SHA-256 of its canonical JSON: its address."""
    kind: str
    """Which kind of genotype it is: `cell` or `path`."""
    genotype: GenotypeJson
    """The JSON form."""
    text: str
    """The text form; of cells the published one."""
    created_at: Time
    """When it was first found."""
    found_by: Sequence[FoundBy]
    """The trials that derived it, the newest first, at most 50."""

    @classmethod
    def of(cls, architecture: Architecture, findings: Sequence[Finding]) -> Self:
        """The answer about a row and its findings."""
        genotype = genotype_of(architecture)
        return cls(
            hash=architecture.hash,
            kind=architecture.kind,
            genotype=genotype.model_dump(mode="json"),
            text=genotype.to_text(),
            created_at=architecture.created_at,
            found_by=[FoundBy.of(finding) for finding in findings],
        )


class RankedArchitecture(Answer):
    """What one trial of a search derived."""

    architecture: str
    """Its hash."""
    trial: int
    """The trial's number."""
    trial_id: UUID
    """The trial."""
    seed: int
    """The trial's seed."""
    parameters: dict[str, JsonValue]
    """What the trial had in place of the spec's own values, by dotted path."""
    status: TrialStatus
    """`succeeded`, or `stopped` when its scheduler ended the trial early."""
    validation_accuracy: float | None
    """The validation accuracy after the trial's last epoch: the supernet's, or the best
    finalist's."""
    recommended: bool
    """Whether the search recommends it."""
    genotype: GenotypeJson
    """The JSON form."""

    @classmethod
    def of(cls, search: Search, trial: Trial, architecture: Architecture) -> Self:
        """The answer about a trial's result."""
        return cls(
            architecture=architecture.hash,
            trial=trial.number,
            trial_id=trial.id,
            seed=trial.seed,
            parameters=trial.parameters or {},
            status=TrialStatus(trial.status),
            validation_accuracy=trial.metrics.get("validation_accuracy"),
            recommended=architecture.hash == search.recommended_hash,
            genotype=genotype_of(architecture).model_dump(mode="json"),
        )


class ArchitectureList(Answer):
    """What a search found: the recommended one first, those of trials that were stopped last."""

    items: Sequence[RankedArchitecture]
    """One for each trial that has completed so far, by validation accuracy."""

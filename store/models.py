"""The tables. Time is the database's, ids are its UUIDv7 and so sort by age."""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    Float,
    ForeignKey,
    Identity,
    Index,
    MetaData,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from search_core.spec.algorithm import RelaxationForm
from store.states import (
    ENDED,
    TRIAL_COMPLETED,
    DeliveryStatus,
    JobKind,
    Role,
    SearchStatus,
    TrialStatus,
    WebhookScope,
)

SCHEMA_REVISION: Final = "0001"
"""The migration that these models match; a test holds it equal to Alembic's head."""


def _one_of(column: str, values: type[StrEnum]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


def _quoted(values: Iterable[StrEnum]) -> str:
    return ", ".join(repr(str(value)) for value in sorted(values))


_ENDED_SQL = f"status IN ({_quoted(ENDED)})"


class Base(DeclarativeBase):
    """Every table; strings are `text`, times are `timestamptz`, objects are `jsonb`."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy reads it from the class as it is)
        str: Text,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[str]: ARRAY(Text),
        list[dict[str, Any]]: JSONB,
    }


class Owner(Base):
    """Who searches belong to, and how much of the cluster they may hold.

    `weight` is the owner's part of the cluster where several owners wait. `teams` are the values of
    the label `team` whose searches the owner sees. A quota that is null does not limit.
    """

    __tablename__ = "owners"
    __table_args__ = (
        CheckConstraint("weight > 0", name="weight_positive"),
        CheckConstraint("max_running >= 0 AND max_gpus >= 0", name="quotas_sane"),
    )

    name: Mapped[str] = mapped_column(primary_key=True)
    weight: Mapped[float] = mapped_column(Float, server_default="1")
    max_running: Mapped[int | None]
    max_gpus: Mapped[float | None] = mapped_column(Float)
    teams: Mapped[list[str]] = mapped_column(server_default=text("'{}'::text[]"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Key(Base):
    """What lets a program in as an owner: the SHA-256 digest of a secret that is shown once."""

    __tablename__ = "keys"
    __table_args__ = (
        CheckConstraint(_one_of("role", Role), name="role_known"),
        UniqueConstraint("digest"),
        Index("ix_keys_owner", "owner"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.uuidv7())
    owner: Mapped[str] = mapped_column(ForeignKey("owners.name"))
    role: Mapped[str]
    name: Mapped[str] = mapped_column(server_default="")
    digest: Mapped[bytes]
    prefix: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class Search(Base):
    """A submitted search or training: its spec, where it is in its life, and who leases it.

    `num_processes` is how many its trials run in, each of which needs the `trial_` resources, and
    `max_live` how many of them its owner's quota lets run at once, as of the present claim.
    `claimed_at` is when its present attempt began, `ran_seconds` how long those before it ran, and
    `time_limit` the most seconds for all.
    """

    __tablename__ = "searches"
    __table_args__ = (
        CheckConstraint(_one_of("kind", JobKind), name="kind_known"),
        CheckConstraint(
            "(kind = 'search') = (space_kind IS NOT NULL)", name="space_of_searches_only"
        ),
        CheckConstraint(_one_of("status", SearchStatus), name="status_known"),
        CheckConstraint(
            "(status = 'running') = (lease_token IS NOT NULL)"
            " AND (lease_token IS NULL) = (lease_expires_at IS NULL)"
            " AND (lease_token IS NULL) = (claimed_at IS NULL)",
            name="leased_while_running",
        ),
        CheckConstraint(
            "status = 'running' OR pause_requested_at IS NULL AND preempt_requested_at IS NULL",
            name="asked_to_stop_while_running",
        ),
        CheckConstraint("time_limit > 0", name="time_limit_positive"),
        CheckConstraint("num_processes >= 1 AND max_live >= 1", name="processes_sane"),
        CheckConstraint(
            f"({_ENDED_SQL}) = (ended_at IS NOT NULL) AND (ended_at IS NULL OR reason IS NOT NULL)",
            name="ended_with_reason",
        ),
        CheckConstraint("trial_cpus >= 1 AND trial_gpus >= 0", name="resources_sane"),
        Index(
            "ix_searches_queue",
            text("priority DESC"),
            "queued_at",
            "id",
            postgresql_where=text("status = 'queued'"),
        ),
        Index(
            "ix_searches_leases",
            "lease_expires_at",
            postgresql_where=text("status = 'running'"),
        ),
        Index("ix_searches_status_id", "status", "id"),
        Index("ix_searches_owner_id", "owner", "id"),
        Index(
            "ix_searches_owner_queue",
            "owner",
            text("priority DESC"),
            "queued_at",
            "id",
            postgresql_where=text("status = 'queued'"),
        ),
        Index("ix_searches_labels", "labels", postgresql_using="gin"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.uuidv7())
    kind: Mapped[str] = mapped_column(server_default=JobKind.SEARCH)
    owner: Mapped[str] = mapped_column(ForeignKey("owners.name"))
    name: Mapped[str]
    status: Mapped[str] = mapped_column(server_default=SearchStatus.QUEUED)
    reason: Mapped[str | None]
    message: Mapped[str] = mapped_column(server_default="")
    spec: Mapped[dict[str, Any]]
    space_kind: Mapped[str | None]
    priority: Mapped[int]
    labels: Mapped[dict[str, Any]]
    trial_cpus: Mapped[int]
    trial_gpus: Mapped[float] = mapped_column(Double)
    trial_custom: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    queued_at: Mapped[datetime] = mapped_column(server_default=func.now())
    not_before: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    pause_requested_at: Mapped[datetime | None]
    preempt_requested_at: Mapped[datetime | None]
    num_processes: Mapped[int]
    max_live: Mapped[int | None]
    preemptible: Mapped[bool] = mapped_column(server_default=text("false"))
    time_limit: Mapped[float | None] = mapped_column(Float)
    claimed_at: Mapped[datetime | None]
    ran_seconds: Mapped[float] = mapped_column(Float, server_default="0")
    attempt: Mapped[int] = mapped_column(server_default="0")
    failures: Mapped[int] = mapped_column(server_default="0")
    lease_token: Mapped[UUID | None]
    lease_expires_at: Mapped[datetime | None]
    leased_by: Mapped[str | None]
    last_event: Mapped[int] = mapped_column(BigInteger, server_default="0")
    best_validation_accuracy: Mapped[float | None]
    recommended_hash: Mapped[str | None] = mapped_column(ForeignKey("architectures.hash"))
    recommendation: Mapped[str] = mapped_column(server_default="")


class DeletedSearch(Base):
    """A search or training that its user deleted, until its files are gone and for a while after.

    A repeated request sees that it was done, and a dispatcher that there are files to remove.
    """

    __tablename__ = "deleted_searches"
    __table_args__ = (
        Index(
            "ix_deleted_searches_files",
            "deleted_at",
            postgresql_where=text("files_removed_at IS NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]
    owner: Mapped[str]
    team: Mapped[str | None]
    deleted_at: Mapped[datetime] = mapped_column(server_default=func.now())
    files_removed_at: Mapped[datetime | None]


class EndedCount(Base):
    """So many more, or fewer, searches and trainings have ended with this status.

    Written by a trigger on `searches` (see the migration), in whatever transaction changes a
    status, so that the sum is right in every snapshot and nobody waits for anybody's count.
    Counting the searches themselves would take longer with every one that is stored.
    """

    __tablename__ = "ended_counts"
    __table_args__ = (CheckConstraint(f"{_ENDED_SQL}", name="status_ended"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    status: Mapped[str]
    number: Mapped[int] = mapped_column(BigInteger)


class Trial(Base):
    """One run: a point with a seed, how far it is, and the architecture that it came to.

    `parameters` are the point's values by dotted path into the search's spec; null until a sampler
    that learns from the trials before it has drawn them. `relaxation` is a search's: how its
    mixtures are computed, as it was told last; null before it first trains. `result` is a
    training's: what the trained network is worth on the test images.
    """

    __tablename__ = "trials"
    __table_args__ = (
        UniqueConstraint("search_id", "number"),
        CheckConstraint(_one_of("status", TrialStatus), name="status_known"),
        CheckConstraint("epoch BETWEEN 0 AND epochs", name="epoch_in_range"),
        CheckConstraint("relaxation IN ('fast', 'plain')", name="relaxation_known"),
        CheckConstraint(
            f"status NOT IN ({_quoted(TRIAL_COMPLETED)})"
            " OR architecture_hash IS NOT NULL AND parameters IS NOT NULL",
            name="completion_has_result",
        ),
        CheckConstraint(
            "status <> 'running' OR parameters IS NOT NULL", name="runs_with_parameters"
        ),
        Index("ix_trials_architecture_hash", "architecture_hash"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.uuidv7())
    search_id: Mapped[UUID] = mapped_column(ForeignKey("searches.id", ondelete="CASCADE"))
    number: Mapped[int]
    stack: Mapped[int]
    seed: Mapped[int] = mapped_column(BigInteger)
    parameters: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    status: Mapped[str] = mapped_column(server_default=TrialStatus.QUEUED)
    reason: Mapped[str | None]
    message: Mapped[str] = mapped_column(server_default="")
    epoch: Mapped[int] = mapped_column(server_default="0")
    epochs: Mapped[int]
    metrics: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    best_validation_accuracy: Mapped[float | None]
    relaxation: Mapped[RelaxationForm | None] = mapped_column(Text)
    architecture_hash: Mapped[str | None] = mapped_column(ForeignKey("architectures.hash"))
    result: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class Metric(Base):
    """One point of a trial's series. Written again by a resumed trial, with the same value."""

    __tablename__ = "metrics"

    trial_id: Mapped[UUID] = mapped_column(
        ForeignKey("trials.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[float] = mapped_column(Float)
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Alphas(Base):
    """What the candidates of a trial's supernet weighed after an epoch: its softmaxed alphas.

    `weights` has a table of [choices to make, candidates] for each group of the space. A resumed
    trial writes the same values again.
    """

    __tablename__ = "alphas"

    trial_id: Mapped[UUID] = mapped_column(
        ForeignKey("trials.id", ondelete="CASCADE"), primary_key=True
    )
    step: Mapped[int] = mapped_column(primary_key=True)
    weights: Mapped[dict[str, Any]]
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Event(Base):
    """Something that happened to a search. `number` counts from 1 within it, without a gap.

    The number is drawn from the search's own row, in the transaction that appends the event, so
    numbers become visible in their order and a reader that has seen n misses nothing before n.
    """

    __tablename__ = "events"

    search_id: Mapped[UUID] = mapped_column(
        ForeignKey("searches.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    trial_id: Mapped[UUID | None]
    kind: Mapped[str]
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class IdempotencyKey(Base):
    """A create that named itself with `Idempotency-Key`, and the answer that it was given.

    Written in the transaction of what was made. The primary key makes whoever repeats the create
    meanwhile wait for that transaction. `nonce` is for answers with a secret, which is not in
    `answer`: what the secret is derived from, together with one that is not stored.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("ix_idempotency_keys_created_at", "created_at"),)

    owner: Mapped[str] = mapped_column(ForeignKey("owners.name"), primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[bytes]
    nonce: Mapped[bytes]
    location: Mapped[str | None]
    answer: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class Webhook(Base):
    """An address that is told of events. `kinds` are event kinds, `search.*` or `*`.

    `secret` signs what is sent, and so is stored as it is. `failing_since` is the first failed
    attempt after the last good one.
    """

    __tablename__ = "webhooks"
    __table_args__ = (
        CheckConstraint(_one_of("scope", WebhookScope), name="scope_known"),
        CheckConstraint("cardinality(kinds) > 0", name="kinds_not_empty"),
        Index("ix_webhooks_owner", "owner"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.uuidv7())
    owner: Mapped[str] = mapped_column(ForeignKey("owners.name"))
    name: Mapped[str] = mapped_column(server_default="")
    url: Mapped[str]
    secret: Mapped[str]
    kinds: Mapped[list[str]]
    scope: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    failing_since: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    disabled_why: Mapped[str] = mapped_column(server_default="")


class Delivery(Base):
    """A message to a webhook: its body, and how far it is. Outlives the search that it tells of.

    `attempts` counts since it was queued, also for redelivery, and guards what a sender writes, as
    a lease's token does. `leased_until` is set while somebody sends it.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("webhook_id", "search_id", "event_number"),
        CheckConstraint(_one_of("status", DeliveryStatus), name="status_known"),
        CheckConstraint(
            "(status = 'delivered') = (delivered_at IS NOT NULL)", name="delivered_at_a_time"
        ),
        CheckConstraint("status = 'pending' OR leased_until IS NULL", name="ended_is_free"),
        Index("ix_deliveries_webhook_id_id", "webhook_id", "id"),
        Index("ix_deliveries_due", "next_attempt_at", postgresql_where=text("status = 'pending'")),
        Index(
            "ix_deliveries_in_order",
            "webhook_id",
            "search_id",
            "event_number",
            postgresql_where=text("status = 'pending'"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.uuidv7())
    webhook_id: Mapped[UUID] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    search_id: Mapped[UUID | None]
    event_number: Mapped[int | None] = mapped_column(BigInteger)
    kind: Mapped[str]
    payload: Mapped[dict[str, Any]]
    status: Mapped[str] = mapped_column(server_default=DeliveryStatus.PENDING)
    attempts: Mapped[int] = mapped_column(server_default="0")
    next_attempt_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    leased_until: Mapped[datetime | None]
    response_status: Mapped[int | None]
    error: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    attempted_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]


class Architecture(Base):
    """A derived architecture, addressed by the hash of its canonical JSON."""

    __tablename__ = "architectures"
    __table_args__ = (CheckConstraint("hash ~ '^[0-9a-f]{64}$'", name="hash_is_sha256"),)

    hash: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    genotype: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Dispatcher(Base):
    """A dispatcher that was seen, and what its Ray cluster can hold."""

    __tablename__ = "dispatchers"

    id: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    nodes: Mapped[list[dict[str, Any]]]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())

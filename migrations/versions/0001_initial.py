"""Create every table: owners, keys, webhooks, searches and what belongs to them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "architectures",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("genotype", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("hash ~ '^[0-9a-f]{64}$'", name=op.f("ck_architectures_hash_is_sha256")),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_architectures")),
    )
    op.create_table(
        "dispatchers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("nodes", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dispatchers")),
    )
    owners = op.create_table(
        "owners",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("weight", sa.Float(), server_default="1", nullable=False),
        sa.Column("max_running", sa.Integer(), nullable=True),
        sa.Column("max_gpus", sa.Float(), nullable=True),
        sa.Column(
            "teams",
            postgresql.ARRAY(sa.Text()),
            server_default=sa.text("'{}'::text[]"),
            nullable=False,
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("weight > 0", name=op.f("ck_owners_weight_positive")),
        sa.CheckConstraint(
            "max_running >= 0 AND max_gpus >= 0", name=op.f("ck_owners_quotas_sane")
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_owners")),
    )
    op.bulk_insert(owners, [{"name": "local"}])
    op.create_table(
        "keys",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "role IN ('viewer', 'member', 'admin')", name=op.f("ck_keys_role_known")
        ),
        sa.ForeignKeyConstraint(["owner"], ["owners.name"], name=op.f("fk_keys_owner")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keys")),
        sa.UniqueConstraint("digest", name=op.f("uq_keys_digest")),
    )
    op.create_index("ix_keys_owner", "keys", ["owner"], unique=False)
    op.create_table(
        "idempotency_keys",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("nonce", sa.LargeBinary(), nullable=False),
        sa.Column("location", sa.Text(), nullable=True),
        sa.Column("answer", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["owner"], ["owners.name"], name=op.f("fk_idempotency_keys_owner")),
        sa.PrimaryKeyConstraint("owner", "path", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("kinds", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("disabled_why", sa.Text(), server_default="", nullable=False),
        sa.CheckConstraint("scope IN ('visible', 'all')", name=op.f("ck_webhooks_scope_known")),
        sa.CheckConstraint("cardinality(kinds) > 0", name=op.f("ck_webhooks_kinds_not_empty")),
        sa.ForeignKeyConstraint(["owner"], ["owners.name"], name=op.f("fk_webhooks_owner")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_index("ix_webhooks_owner", "webhooks", ["owner"])
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("webhook_id", sa.Uuid(), nullable=False),
        sa.Column("search_id", sa.Uuid(), nullable=True),
        sa.Column("event_number", sa.BigInteger(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "next_attempt_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("response_status", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("attempted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('pending', 'delivered', 'failed')", name=op.f("ck_deliveries_status_known")
        ),
        sa.CheckConstraint(
            "(status = 'delivered') = (delivered_at IS NOT NULL)",
            name=op.f("ck_deliveries_delivered_at_a_time"),
        ),
        sa.CheckConstraint(
            "status = 'pending' OR leased_until IS NULL", name=op.f("ck_deliveries_ended_is_free")
        ),
        sa.ForeignKeyConstraint(
            ["webhook_id"],
            ["webhooks.id"],
            name=op.f("fk_deliveries_webhook_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint(
            "webhook_id",
            "search_id",
            "event_number",
            name=op.f("uq_deliveries_webhook_id_search_id_event_number"),
        ),
    )
    op.create_index("ix_deliveries_webhook_id_id", "deliveries", ["webhook_id", "id"])
    op.create_index(
        "ix_deliveries_due",
        "deliveries",
        ["next_attempt_at"],
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "ix_deliveries_in_order",
        "deliveries",
        ["webhook_id", "search_id", "event_number"],
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_table(
        "searches",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("kind", sa.Text(), server_default="search", nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="queued", nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), server_default="", nullable=False),
        sa.Column("spec", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("space_kind", sa.Text(), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("labels", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("trial_cpus", sa.Integer(), nullable=False),
        sa.Column("trial_gpus", sa.Double(), nullable=False),
        sa.Column(
            "trial_custom",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "queued_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("pause_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("preempt_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("num_processes", sa.Integer(), nullable=False),
        sa.Column("max_live", sa.Integer(), nullable=True),
        sa.Column("preemptible", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("time_limit", sa.Float(), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ran_seconds", sa.Float(), server_default="0", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_token", sa.Uuid(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("leased_by", sa.Text(), nullable=True),
        sa.Column("last_event", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("best_validation_accuracy", sa.Double(), nullable=True),
        sa.Column("recommended_hash", sa.Text(), nullable=True),
        sa.Column("recommendation", sa.Text(), server_default="", nullable=False),
        sa.CheckConstraint("kind IN ('search', 'training')", name=op.f("ck_searches_kind_known")),
        sa.CheckConstraint(
            "(kind = 'search') = (space_kind IS NOT NULL)",
            name=op.f("ck_searches_space_of_searches_only"),
        ),
        sa.CheckConstraint(
            "(status = 'running') = (lease_token IS NOT NULL) AND (lease_token IS NULL) = (lease_expires_at IS NULL) AND (lease_token IS NULL) = (claimed_at IS NULL)",
            name=op.f("ck_searches_leased_while_running"),
        ),
        sa.CheckConstraint(
            "status = 'running' OR pause_requested_at IS NULL AND preempt_requested_at IS NULL",
            name=op.f("ck_searches_asked_to_stop_while_running"),
        ),
        sa.CheckConstraint("time_limit > 0", name=op.f("ck_searches_time_limit_positive")),
        sa.CheckConstraint(
            "num_processes >= 1 AND max_live >= 1", name=op.f("ck_searches_processes_sane")
        ),
        sa.CheckConstraint(
            "(status IN ('cancelled', 'failed', 'succeeded')) = (ended_at IS NOT NULL) AND (ended_at IS NULL OR reason IS NOT NULL)",
            name=op.f("ck_searches_ended_with_reason"),
        ),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')",
            name=op.f("ck_searches_status_known"),
        ),
        sa.CheckConstraint(
            "trial_cpus >= 1 AND trial_gpus >= 0", name=op.f("ck_searches_resources_sane")
        ),
        sa.ForeignKeyConstraint(
            ["recommended_hash"], ["architectures.hash"], name=op.f("fk_searches_recommended_hash")
        ),
        sa.ForeignKeyConstraint(["owner"], ["owners.name"], name=op.f("fk_searches_owner")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_searches")),
    )
    op.create_index(
        "ix_searches_labels", "searches", ["labels"], unique=False, postgresql_using="gin"
    )
    op.create_index(
        "ix_searches_leases",
        "searches",
        ["lease_expires_at"],
        unique=False,
        postgresql_where=sa.text("status = 'running'"),
    )
    op.create_index(
        "ix_searches_queue",
        "searches",
        [sa.literal_column("priority DESC"), "queued_at", "id"],
        unique=False,
        postgresql_where=sa.text("status = 'queued'"),
    )
    op.create_index(
        "ix_searches_owner_queue",
        "searches",
        ["owner", sa.literal_column("priority DESC"), "queued_at", "id"],
        unique=False,
        postgresql_where=sa.text("status = 'queued'"),
    )
    op.create_index("ix_searches_owner_id", "searches", ["owner", "id"], unique=False)
    op.create_index("ix_searches_status_id", "searches", ["status", "id"], unique=False)
    op.create_table(
        "deleted_searches",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("team", sa.Text(), nullable=True),
        sa.Column(
            "deleted_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("files_removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deleted_searches")),
    )
    op.create_index(
        "ix_deleted_searches_files",
        "deleted_searches",
        ["deleted_at"],
        unique=False,
        postgresql_where=sa.text("files_removed_at IS NULL"),
    )
    op.create_table(
        "events",
        sa.Column("search_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("trial_id", sa.Uuid(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["search_id"], ["searches.id"], name=op.f("fk_events_search_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("search_id", "number", name=op.f("pk_events")),
    )
    op.create_table(
        "trials",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("search_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("stack", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("parameters", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("status", sa.Text(), server_default="queued", nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), server_default="", nullable=False),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("epochs", sa.Integer(), nullable=False),
        sa.Column(
            "metrics",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("best_validation_accuracy", sa.Double(), nullable=True),
        sa.Column("relaxation", sa.Text(), nullable=True),
        sa.Column("architecture_hash", sa.Text(), nullable=True),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "relaxation IN ('fast', 'plain')", name=op.f("ck_trials_relaxation_known")
        ),
        sa.CheckConstraint(
            "status NOT IN ('stopped', 'succeeded') OR architecture_hash IS NOT NULL AND parameters IS NOT NULL",
            name=op.f("ck_trials_completion_has_result"),
        ),
        sa.CheckConstraint(
            "status <> 'running' OR parameters IS NOT NULL",
            name=op.f("ck_trials_runs_with_parameters"),
        ),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'succeeded', 'stopped', 'failed', 'cancelled')",
            name=op.f("ck_trials_status_known"),
        ),
        sa.CheckConstraint("epoch BETWEEN 0 AND epochs", name=op.f("ck_trials_epoch_in_range")),
        sa.ForeignKeyConstraint(
            ["architecture_hash"], ["architectures.hash"], name=op.f("fk_trials_architecture_hash")
        ),
        sa.ForeignKeyConstraint(
            ["search_id"], ["searches.id"], name=op.f("fk_trials_search_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trials")),
        sa.UniqueConstraint("search_id", "number", name=op.f("uq_trials_search_id_number")),
    )
    op.create_index("ix_trials_architecture_hash", "trials", ["architecture_hash"], unique=False)
    op.create_table(
        "metrics",
        sa.Column("trial_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column(
            "recorded_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["trial_id"], ["trials.id"], name=op.f("fk_metrics_trial_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("trial_id", "name", "step", name=op.f("pk_metrics")),
    )
    op.create_table(
        "alphas",
        sa.Column("trial_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("weights", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "recorded_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["trial_id"], ["trials.id"], name=op.f("fk_alphas_trial_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("trial_id", "step", name=op.f("pk_alphas")),
    )
    op.create_table(
        "ended_counts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "status IN ('cancelled', 'failed', 'succeeded')",
            name=op.f("ck_ended_counts_status_ended"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ended_counts")),
    )
    op.execute(_COUNT_ENDED)
    for when, condition in (
        ("INSERT", f"NEW.{_HAS_ENDED}"),
        ("DELETE", f"OLD.{_HAS_ENDED}"),
        (
            "UPDATE OF status",
            f"OLD.status <> NEW.status AND (OLD.{_HAS_ENDED} OR NEW.{_HAS_ENDED})",
        ),
    ):
        op.execute(
            f"CREATE TRIGGER count_ended_{when.split()[0].lower()} AFTER {when} ON searches"
            f" FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION count_ended()"
        )


_HAS_ENDED = "status IN ('cancelled', 'failed', 'succeeded')"
_COUNT_ENDED = """
CREATE FUNCTION count_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.status IN ('cancelled', 'failed', 'succeeded') THEN
        INSERT INTO ended_counts (status, number) VALUES (OLD.status, -1);
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.status IN ('cancelled', 'failed', 'succeeded') THEN
        INSERT INTO ended_counts (status, number) VALUES (NEW.status, 1);
    END IF;
    RETURN NULL;
END
$$
"""


def downgrade() -> None:

    op.drop_table("ended_counts")
    op.drop_table("alphas")
    op.drop_table("metrics")
    op.drop_index("ix_trials_architecture_hash", table_name="trials")
    op.drop_table("trials")
    op.drop_table("events")
    op.drop_index("ix_searches_status_id", table_name="searches")
    op.drop_index("ix_searches_owner_id", table_name="searches")
    op.drop_index(
        "ix_searches_owner_queue",
        table_name="searches",
        postgresql_where=sa.text("status = 'queued'"),
    )
    op.drop_index(
        "ix_searches_queue", table_name="searches", postgresql_where=sa.text("status = 'queued'")
    )
    op.drop_index(
        "ix_searches_leases", table_name="searches", postgresql_where=sa.text("status = 'running'")
    )
    op.drop_index("ix_searches_labels", table_name="searches", postgresql_using="gin")
    op.drop_table("searches")
    op.execute("DROP FUNCTION count_ended()")
    op.drop_index(
        "ix_deleted_searches_files",
        table_name="deleted_searches",
        postgresql_where=sa.text("files_removed_at IS NULL"),
    )
    op.drop_table("deleted_searches")
    op.drop_table("deliveries")
    op.drop_table("webhooks")
    op.drop_table("idempotency_keys")
    op.drop_index("ix_keys_owner", table_name="keys")
    op.drop_table("keys")
    op.drop_table("owners")
    op.drop_table("dispatchers")
    op.drop_table("architectures")

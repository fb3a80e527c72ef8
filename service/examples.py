"""Examples for the OpenAPI document. A test holds each against the schema of its answer."""

from typing import Any, Final
from uuid import UUID

from search_core.alpha_labels import alpha_labels
from search_core.derive import heaviest_path
from search_core.genotype import CellGenotype, Edge
from search_core.spec import SearchSpec
from search_core.spec.hypercuboid import HyperCuboidSpace
from search_core.spec.retraining import RetrainingSpec
from service.alphas.schemas import AlphaGroup, AlphaSeries, AlphaTables
from service.drawing import cuboids
from service.paths.cuboid import WeightedCuboid
from service.paths.schemas import PathList
from service.presets.schemas import PresetList
from service.problems import TITLES, FieldProblem, Problem
from service.searches.schemas import DryRun
from service.searches.size import SpaceSize
from service.trainings.schemas import TrainingDryRun

SEARCH_ID: Final = "01979d3c-6f5e-7a31-9c53-5f2f0c1d8e4b"
TRAINING_ID: Final = "01979d3d-0a7c-7b52-a0f4-6d1c2e3f4a5b"
TRIAL_ID: Final = "01979d3c-6f61-7c0e-8d1a-2b9e4f7a6c35"

SPECS: Final[dict[str, Any]] = {
    "preset": {
        "summary": "A preset alone is a complete spec",
        "value": {"preset": "digits-quick"},
    },
    "preset with changes": {
        "summary": "A preset, with some of its fields overridden",
        "value": {
            "preset": "digits-quick",
            "name": "three seeds",
            "trials": {"seeds": [0, 1, 2]},
            "labels": {"team": "vision"},
        },
    },
    "hypercuboid": {
        "summary": "A grid of channels, kernel sizes and operations, searched in one run",
        "value": {
            "name": "which kernel",
            "space": {
                "kind": "hypercuboid",
                "axes": {
                    "channels": [8, 16],
                    "operation": ["sharp_sep_conv", "resizable_pool"],
                    "kernel_size": [3, 5],
                },
                "levels": 2,
                "final_channels": 64,
            },
            "algorithm": {"weighting": "max_w", "architecture_learning_rate": 0.05},
            "training": {"epochs": 10, "batch_size": 64, "learning_rate": 0.1},
        },
    },
    "explicit": {
        "summary": "A DARTS space with a schedule of its own",
        "value": {
            "name": "first try",
            "space": {"kind": "darts", "channels": 8, "cells": 5, "nodes": 3},
            "dataset": {"name": "digits"},
            "algorithm": {"order": "first", "weighting": "max_w"},
            "training": {
                "epochs": 10,
                "batch_size": 64,
                "schedule": {"kind": "cosine_power", "power": 2, "warmup_epochs": 2},
            },
            "trials": {"seeds": [0, 1]},
            "resources": {"cpus": 1, "gpus": 0},
            "priority": 0,
            "labels": {"team": "vision"},
        },
    },
    "grid": {
        "summary": "Every combination of two hyperparameters, with two seeds each: 8 trials",
        "value": {
            "preset": "digits-quick",
            "trials": {
                "seeds": [0, 1],
                "grid": {"training.learning_rate": [0.05, 0.1], "augmentation.cutout": [0, 4]},
            },
        },
    },
    "stacked seeds": {
        "summary": "Four seeds in one process, on the resources of one trial",
        "value": {
            "preset": "digits-quick",
            "trials": {"seeds": [0, 1, 2, 3], "stack": 4},
        },
    },
    "half a GPU": {
        "summary": "Two trials share a GPU, on a node that was started with the resource a100",
        "value": {
            "preset": "digits-quick",
            "trials": {"seeds": [0, 1]},
            "resources": {"cpus": 1, "gpus": 0.5, "custom": {"a100": 1}},
        },
    },
    "TPE and ASHA": {
        "summary": "20 points, each drawn from what the ones before came to; the weak ones stop",
        "value": {
            "preset": "digits-quick",
            "trials": {
                "seeds": [0],
                "sample": {
                    "training.learning_rate": {"loguniform": [0.01, 0.5]},
                    "algorithm.architecture_learning_rate": {"loguniform": [0.001, 0.1]},
                    "training.batch_size": {"choice": [32, 64]},
                },
                "num_samples": 20,
                "sampler": "tpe",
                "scheduler": {"kind": "asha", "grace_epochs": 2, "reduction_factor": 3},
            },
        },
    },
}

_SPEC: Final = SearchSpec.model_validate(
    {
        "preset": "digits-quick",
        "name": "three seeds",
        "trials": {"seeds": [0, 1, 2]},
        "labels": {"team": "vision"},
    }
).model_dump(mode="json")

GENOTYPE_VALUE: Final = CellGenotype(
    normal=(
        Edge("sep_conv_3x3", 0),
        Edge("sep_conv_3x3", 1),
        Edge("skip_connect", 0),
        Edge("dil_conv_3x3", 2),
        Edge("sep_conv_5x5", 1),
        Edge("skip_connect", 2),
    ),
    normal_concat=(2, 3, 4),
    reduce=(
        Edge("max_pool_3x3", 0),
        Edge("sep_conv_5x5", 1),
        Edge("max_pool_3x3", 0),
        Edge("skip_connect", 2),
        Edge("skip_connect", 2),
        Edge("avg_pool_3x3", 1),
    ),
    reduce_concat=(2, 3, 4),
)
GENOTYPE: Final = GENOTYPE_VALUE.model_dump(mode="json")
HASH: Final = GENOTYPE_VALUE.hash

METRICS: Final = {
    "train_loss": 0.3121,
    "train_accuracy": 0.9123,
    "validation_loss": 0.2514,
    "validation_accuracy": 0.9319,
    "learning_rate": 0.0263,
    "seconds": 4.81,
    "steps_per_second": 2.51,
    "images_per_second": 160.7,
    "peak_memory_bytes": 431_554_560.0,
    "alpha_entropy_normal": 1.9342,
    "alpha_entropy_reduce": 1.9517,
    "skip_connects": 2.0,
}

TRIAL: Final[dict[str, Any]] = {
    "id": TRIAL_ID,
    "search_id": SEARCH_ID,
    "number": 0,
    "seed": 0,
    "parameters": {},
    "status": "running",
    "reason": None,
    "message": "",
    "epoch": 9,
    "epochs": 12,
    "metrics": METRICS,
    "best_validation_accuracy": 0.9319,
    "relaxation": "fast",
    "architecture": None,
    "result": None,
    "started_at": "2026-01-31T12:00:03.118Z",
    "ended_at": None,
}
RETRIED: Final[dict[str, Any]] = {
    **TRIAL,
    "parameters": {"training.learning_rate": 0.5, "augmentation.cutout": 4},
    "status": "queued",
}
TRIAL_LIST: Final = {"items": [TRIAL]}
SERIES: Final = {
    "trial_id": TRIAL_ID,
    "series": {"validation_accuracy": [{"step": 8, "value": 0.9263}, {"step": 9, "value": 0.9319}]},
}
SERIES_CSV: Final = "name,step,value\nvalidation_accuracy,8,0.9263\nvalidation_accuracy,9,0.9319\n"

SEARCH: Final[dict[str, Any]] = {
    "id": SEARCH_ID,
    "owner": "ana",
    "name": "three seeds",
    "status": "queued",
    "reason": None,
    "message": "",
    "spec": _SPEC,
    "priority": 0,
    "labels": {"team": "vision"},
    "attempt": 0,
    "created_at": "2026-01-31T12:00:00.412Z",
    "started_at": None,
    "ended_at": None,
    "cancel_requested_at": None,
    "pause_requested_at": None,
    "preempt_requested_at": None,
    "claimed_at": None,
    "ran_seconds": 0.0,
    "waiting": {
        "position": 2,
        "why": "1 is ahead of it",
        "estimated_start": "2026-01-31T12:04:00.000Z",
    },
    "counts": {"total": 1, "completed": 0, "failed": 0, "pending": 1},
    "trials": [
        {
            **TRIAL,
            "status": "queued",
            "epoch": 0,
            "metrics": {},
            "best_validation_accuracy": None,
            "relaxation": None,
            "started_at": None,
        }
    ],
    "recommended": None,
}
SEARCH_PAGE: Final = {"items": [SEARCH], "next_cursor": "AZedPG9eejGcU18vDB2OSw"}
_VALID: Final = SearchSpec.model_validate(_SPEC)
DRY_RUN: Final = DryRun.of(_VALID, SpaceSize.of(_VALID)).model_dump(mode="json")

EVENT: Final = {
    "number": 21,
    "kind": "trial.epoch",
    "trial_id": TRIAL_ID,
    "data": {"epoch": 9, "epochs": 12, "metrics": METRICS, "genotype_hash": HASH},
    "created_at": "2026-01-31T12:00:48.530Z",
}
EVENT_PAGE: Final = {"items": [EVENT], "last": 21}
EVENT_STREAM: Final = (
    'event: search.queued\ndata: {"number":1,"kind":"search.queued","trial_id":null,"data":{},'
    '"created_at":"2026-01-31T12:00:00.412Z"}\nid: 1\n\n'
)

ARCHITECTURE: Final = {
    "hash": HASH,
    "kind": "cell",
    "genotype": GENOTYPE,
    "text": GENOTYPE_VALUE.to_text(),
    "created_at": "2026-01-31T12:01:04.220Z",
    "found_by": [
        {
            "search_id": SEARCH_ID,
            "search_name": "three seeds",
            "trial_id": TRIAL_ID,
            "trial_number": 0,
            "seed": 0,
            "family": "darts",
            "validation_accuracy": 0.9457,
        }
    ],
}
ARCHITECTURE_LIST: Final = {
    "items": [
        {
            "architecture": HASH,
            "trial": 0,
            "trial_id": TRIAL_ID,
            "seed": 0,
            "parameters": {},
            "status": "succeeded",
            "validation_accuracy": 0.9457,
            "recommended": True,
            "genotype": GENOTYPE,
        }
    ]
}

_CUBOID: Final = HyperCuboidSpace(
    kind="hypercuboid", axes={"channels": (8, 16)}, levels=1, strides=(2,), final_channels=32
)
_CUBOID_WEIGHTS: Final = [[0.05, 0.07, 0.41, 0.09, 0.11, 0.06, 0.13, 0.08]]
PATH: Final = heaviest_path(_CUBOID_WEIGHTS, _CUBOID)
CUBOID_DOT: Final = cuboids.to_dot(_CUBOID, _CUBOID_WEIGHTS, PATH, "epoch 9 of 12")
PATHS: Final = PathList.of(
    UUID(TRIAL_ID),
    WeightedCuboid(_CUBOID, _CUBOID_WEIGHTS, PATH, 9, 12, (1, 8, 8), 10),
    2,
    ("parameters", 2500),
).model_dump(mode="json")
_ALPHAS: Final = AlphaSeries(
    trial_id=UUID(TRIAL_ID),
    last_step=9,
    groups={name: AlphaGroup.of(labels) for name, labels in alpha_labels(_CUBOID).items()},
    items=[AlphaTables(step=9, weights={"cuboid": _CUBOID_WEIGHTS})],
)
ALPHAS: Final = _ALPHAS.model_dump(mode="json")
ALPHAS_CSV: Final = _ALPHAS.to_csv()

QUEUE: Final = {
    "counts": {"queued": 1, "running": 1, "succeeded": 4, "failed": 0, "cancelled": 1},
    "waiting": [
        {
            "search_id": TRAINING_ID,
            "kind": "training",
            "owner": "ana",
            "name": "wide",
            "priority": 0,
            "position": 1,
            "why": "the cluster is full",
            "estimated_start": "2026-01-31T12:04:00.000Z",
            "created_at": "2026-01-31T12:00:31.902Z",
        }
    ],
    "running": [
        {
            "search_id": SEARCH_ID,
            "kind": "search",
            "owner": "ana",
            "name": "three seeds",
            "attempt": 1,
            "started_at": "2026-01-31T12:00:02.744Z",
            "claimed_at": "2026-01-31T12:00:02.744Z",
            "holder": "gpu-box:4711",
            "cpus": 2,
            "gpus": 0.5,
            "custom": {"a100": 1},
            "trials": [{"number": 0, "status": "running", "epoch": 9, "epochs": 12}],
        }
    ],
    "cluster": {
        "nodes": [{"cpus": 2.0, "gpus": 1.0, "memory": 16_541_319_168.0, "custom": {"a100": 2.0}}],
        "cpus": 2.0,
        "gpus": 1.0,
        "custom": {"a100": 2.0},
        "reserved_cpus": 2.0,
        "reserved_gpus": 0.5,
        "reserved_custom": {"a100": 1.0},
    },
    "dispatchers": [
        {
            "id": "gpu-box:4711",
            "host": "gpu-box",
            "pid": 4711,
            "seen_at": "2026-01-31T12:00:47.001Z",
        }
    ],
}

TRAINING_SPECS: Final[dict[str, Any]] = {
    "published": {
        "summary": "A published architecture with a preset",
        "value": {"preset": "retrain-digits", "architecture": "DARTS_V2"},
    },
    "genotype": {
        "summary": "A genotype, with two seeds",
        "value": {
            "name": "is it any good",
            "architecture": GENOTYPE,
            "network": {"channels": 8, "cells": 5},
            "dataset": {"name": "digits"},
            "training": {"epochs": 20},
            "trials": {"seeds": [0, 1]},
            "labels": {"team": "vision"},
        },
    },
    "path": {
        "summary": "A path through a HyperCuboid, which says all of its network itself",
        "value": {"preset": "retrain-digits", "architecture": "HYPERCUBOID_HANDMADE"},
    },
    "stored": {
        "summary": "What a search found, by its hash",
        "value": {"preset": "retrain-digits", "architecture": HASH},
    },
}
_TRAINING_SPEC: Final = RetrainingSpec.model_validate(
    TRAINING_SPECS["genotype"]["value"], strict=False
)
TRAINING_DRY_RUN: Final = TrainingDryRun.of(_TRAINING_SPEC).model_dump(mode="json")
TRAINING: Final[dict[str, Any]] = {
    **{key: value for key, value in SEARCH.items() if key != "recommended"},
    "id": TRAINING_ID,
    "owner": "ana",
    "name": "is it any good",
    "spec": _TRAINING_SPEC.model_dump(mode="json"),
    "trials": [{**trial, "search_id": TRAINING_ID} for trial in SEARCH["trials"]],
}
TRAINED: Final[dict[str, Any]] = {
    **TRAINING,
    "status": "succeeded",
    "reason": "completed",
    "attempt": 1,
    "started_at": "2026-01-31T12:00:03.118Z",
    "ended_at": "2026-01-31T12:04:11.560Z",
    "waiting": None,
    "counts": {"total": 1, "completed": 1, "failed": 0, "pending": 0},
    "trials": [
        {
            **TRIAL,
            "search_id": TRAINING_ID,
            "status": "succeeded",
            "reason": "completed",
            "epoch": 20,
            "epochs": 20,
            "metrics": {
                "train_loss": 0.0121,
                "train_accuracy": 0.9976,
                "learning_rate": 1e-8,
                "drop_path": 0.19,
                "validation_loss": 0.0502,
                "validation_accuracy": 0.9861,
                "seconds": 11.3,
                "steps_per_second": 2.03,
                "images_per_second": 129.9,
                "peak_memory_bytes": 448_266_240.0,
            },
            "best_validation_accuracy": 0.9931,
            "relaxation": None,
            "architecture": HASH,
            "result": {
                "last": {"epoch": 20, "loss": 0.0673, "accuracy": 0.9833, "extra_accuracies": {}},
                "best": {"epoch": 17, "loss": 0.0641, "accuracy": 0.9806, "extra_accuracies": {}},
            },
            "ended_at": "2026-01-31T12:04:11.482Z",
        }
    ],
}
TRAINING_PAGE: Final = {"items": [TRAINED], "next_cursor": None}

LOG_LIST: Final = {
    "items": [
        {
            "name": "runner-attempt-1.log",
            "trial": None,
            "attempt": 1,
            "size": 2_048,
            "modified_at": "2026-01-31T12:00:51.870Z",
        },
        {
            "name": "trial-0-attempt-1.log",
            "trial": 0,
            "attempt": 1,
            "size": 911,
            "modified_at": "2026-01-31T12:00:49.114Z",
        },
    ]
}
LOG_TEXT: Final = (
    "2026-01-31 12:00:48,511 INFO workers.trial_group trial 0, epoch 9 of 12: train_loss 0.3121, "
    "validation_loss 0.2514, validation_accuracy 0.9319, seconds 4.8100\n"
)

PRESET_LIST: Final = PresetList.complete().model_dump(mode="json")

ALIVE: Final = {"status": "ok"}
READY: Final = {
    "ready": True,
    "checks": {
        "database": {"ok": True, "detail": "PostgreSQL answers"},
        "schema": {"ok": True, "detail": "at revision 0001"},
        "dispatcher": {"ok": True, "detail": "1 seen lately"},
    },
}
NOT_READY: Final = {
    "ready": False,
    "checks": {
        **READY["checks"],  # type: ignore[dict-item]
        "dispatcher": {
            "ok": False,
            "detail": "none seen lately: start one with `python -m workers.dispatcher`",
        },
    },
}
ROOT: Final = {
    "name": "Dartboard",
    "version": "0.1.0",
    "links": {"searches": "/v1/searches", "openapi": "/openapi.json"},
}


def _problem(slug: str, detail: str, *errors: FieldProblem) -> dict[str, Any]:
    status, title = TITLES[slug]
    problem = Problem(
        type=f"urn:dartboard:problem:{slug}",
        title=title,
        status=status,
        detail=detail,
        errors=errors or None,
    )
    return problem.model_dump(exclude_none=True, mode="json")


PROBLEMS: Final = {
    "unauthorized": _problem(
        "unauthorized",
        "This takes a key. Send a key as `Authorization: Bearer dbk_...`. `dartboard up` keeps one "
        "in .dartboard/api-key; an admin makes others with `dartboard keys create`.",
    ),
    "forbidden": _problem(
        "forbidden",
        "This takes a key with the role member, and yours is viewer: ask an admin for one.",
    ),
    "invalid-body": _problem(
        "invalid-body",
        "/role: Input should be 'viewer', 'member' or 'admin'",
        FieldProblem(pointer="/role", message="Input should be 'viewer', 'member' or 'admin'"),
    ),
    "malformed-json": _problem(
        "malformed-json", "Expecting ',' delimiter: line 1 column 24 (char 23)."
    ),
    "not-found": _problem(
        "not-found", f"There is no search {SEARCH_ID}. GET /v1/searches lists the searches."
    ),
    "conflict": _problem(
        "conflict", f"Search {SEARCH_ID} is succeeded and cannot become cancelled: it has ended."
    ),
    "idempotency-key-reused": _problem(
        "idempotency-key-reused",
        "The Idempotency-Key '8e03978e-40d5-43e8-bc93-6894a57f9324' was used for another request "
        "to /v1/searches, with another body or query, in the last 24 hours: send a new key "
        "with every new request.",
    ),
    "body-too-large": _problem("body-too-large", "A body has at most 1,048,576 bytes here."),
    "unsupported-media-type": _problem(
        "unsupported-media-type",
        "The header Content-Type was 'application/x-www-form-urlencoded'; send "
        "`Content-Type: application/json` (curl: -H 'Content-Type: application/json').",
    ),
    "invalid-spec": _problem(
        "invalid-spec",
        "/space/channels: Input should be greater than or equal to 1",
        FieldProblem(
            pointer="/space/channels", message="Input should be greater than or equal to 1"
        ),
    ),
    "invalid-parameter": _problem(
        "invalid-parameter", "query parameter 'limit': Input should be less than or equal to 200."
    ),
    "unavailable": _problem(
        "unavailable", "PostgreSQL does not answer: see that it runs, and try again."
    ),
    "storage-unavailable": _problem(
        "storage-unavailable",
        "The storage of checkpoints and logs, s3://bucket/prefix, cannot be read: it did not "
        "answer in 20 s. See that it runs and that the API may read it (DARTBOARD_STORAGE, "
        "AWS_*), and try again.",
    ),
}

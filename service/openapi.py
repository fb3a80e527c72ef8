"""The OpenAPI document: what FastAPI derives, and the spec, the genotype and the problems."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from search_core.genotype import CellGenotype, PathGenotype
from search_core.spec import SearchSpec
from search_core.spec.retraining import RetrainingSpec
from service import examples
from service.jobs.changes import JobChanges
from service.keys.schemas import KeyRequest
from service.owners.schemas import OwnerChanges
from service.problems import MEDIA_TYPE, TITLES, Problem
from service.schema_base import STANDS_FOR
from service.searches.schemas import SearchBatch
from service.webhooks.schemas import WebhookChanges, WebhookRequest

TAGS: Final = [
    {"name": "searches", "description": "Submit a search, follow it, cancel it."},
    {"name": "trainings", "description": "Train an architecture from scratch, in the same queue."},
    {"name": "trials", "description": "The runs of a search or training: points and seeds."},
    {"name": "events", "description": "What happened to a search, as a page and live."},
    {"name": "logs", "description": "What runners and trials wrote."},
    {"name": "architectures", "description": "What searches found: JSON, text and pictures."},
    {"name": "queue", "description": "Who waits and why, who runs, and on what."},
    {"name": "webhooks", "description": "Addresses that are told of events, signed."},
    {"name": "keys", "description": "Who may ask for what: keys, owners, quotas."},
    {"name": "presets", "description": "Specs to start from."},
    {"name": "service", "description": "The API about itself."},
]

READING: Final = ("unauthorized", "invalid-parameter", "unavailable")
"""The problems of an operation that looks at what its caller sees."""

LOOKUP: Final = ("unauthorized", "not-found", "invalid-parameter", "unavailable")
"""The problems of an operation that looks up one thing."""

VERB: Final = (
    "unauthorized",
    "forbidden",
    "not-found",
    "conflict",
    "invalid-parameter",
    "unavailable",
)
"""The problems of an operation that changes one thing."""

BODY: Final = (
    "malformed-json",
    "body-too-large",
    "unsupported-media-type",
    "unauthorized",
    "forbidden",
    "invalid-body",
    "invalid-parameter",
    "unavailable",
)
"""The problems of an operation that takes a body which is no spec."""

CREATION: Final = (*BODY, "idempotency-key-reused")
"""The problems of an operation that makes something from a body which is no spec."""

SUBMISSION: Final = (
    "malformed-json",
    "body-too-large",
    "unsupported-media-type",
    "unauthorized",
    "forbidden",
    "invalid-spec",
    "invalid-parameter",
    "idempotency-key-reused",
    "unavailable",
)
"""The problems of an operation that takes a spec."""

REPLAYED: Final = {
    "Idempotency-Replayed": {
        "description": "`true` if this is the answer to an earlier request with the same "
        "`Idempotency-Key`.",
        "schema": {"type": "string"},
    }
}
"""The header of a create's answer that was given before."""

_GENOTYPES: Final = ("CellGenotype", "PathGenotype")

_EXAMPLE = "x-example"
_COMPONENT = "#/components/schemas/{model}"


def ok(
    description: str,
    example: Any,
    model: type[BaseModel] | None = None,
    *,
    location: bool = False,
) -> dict[str, Any]:
    """A response in JSON, with its example.

    Args:
        description: What it is.
        example: What it looks like.
        model: Its schema, where the endpoint's own return type does not say it.
        location: Whether it is a create's: the header Location names what was made, and
            Idempotency-Replayed says whether this was answered before.
    """
    response: dict[str, Any] = {
        "description": description,
        "content": {"application/json": {"example": _kept(example)}},
    }
    if model is not None:
        response["model"] = model
    if location:
        response["headers"] = {
            "Location": {"description": "Path of what was made.", "schema": {"type": "string"}},
            **REPLAYED,
        }
    return response


def media(description: str, contents: Mapping[str, str]) -> dict[str, Any]:
    """A response in other media types, each with its example.

    Args:
        description: What it is.
        contents: Example by media type.
    """
    return {
        "description": description,
        "content": {
            media_type: {"schema": {"type": "string"}, "example": example}
            for media_type, example in contents.items()
        },
    }


def problems(*slugs: str) -> dict[int | str, dict[str, Any]]:
    """The refusals that an operation has, each with an example.

    Args:
        slugs: Keys of `service.problems.TITLES`.
    """
    by_status: dict[int | str, list[str]] = {}
    for slug in slugs:
        by_status.setdefault(int(TITLES[slug][0]), []).append(slug)
    return {status: _refusals(group) for status, group in by_status.items()}


def spec_body(specs: Mapping[str, Any], model: str = "SearchSpec") -> dict[str, Any]:
    """The request body of an operation, in JSON.

    Args:
        specs: Examples by name, each with `summary` and `value`.
        model: The component that describes it.
    """
    schema = {"$ref": _COMPONENT.format(model=model)}
    content = {"application/json": {"schema": schema, "examples": dict(specs)}}
    return {"requestBody": {"required": True, "content": content}}


_ARCHITECTURE: Final = {
    "title": "Architecture",
    "description": "A genotype, a published architecture's name, or a stored one's hash. The one "
    "field without a default.",
    "anyOf": [{"$ref": _COMPONENT.format(model="Genotype")}, {"type": "string"}],
}


def document(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """The function that makes an application's OpenAPI document, once."""

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build(app)
        return app.openapi_schema

    return build


def _build(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
        tags=TAGS,
    )
    _, extra = models_json_schema(
        [
            (SearchSpec, "validation"),
            (RetrainingSpec, "validation"),
            (CellGenotype, "validation"),
            (PathGenotype, "validation"),
            (KeyRequest, "validation"),
            (SearchBatch, "validation"),
            (WebhookRequest, "validation"),
            (WebhookChanges, "validation"),
            (OwnerChanges, "validation"),
            (JobChanges, "validation"),
            (Problem, "serialization"),
        ],
        ref_template=_COMPONENT,
    )
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    components |= extra["$defs"]
    components["Genotype"] = {
        "title": "Genotype",
        "description": "An architecture: a pair of cells, or a path through a hypercuboid.",
        "anyOf": [{"$ref": _COMPONENT.format(model=name)} for name in _GENOTYPES],
    }
    components["RetrainingSpec"]["properties"]["architecture"] = _ARCHITECTURE
    # Pydantic applies a preset before it looks for the space.
    del components["SearchSpec"]["required"]
    components["SearchSpec"]["anyOf"] = [{"required": ["space"]}, {"required": ["preset"]}]
    schema["components"]["schemas"] = dict(sorted(components.items()))
    linked: dict[str, Any] = _link(schema)
    return linked


def _link(value: Any) -> Any:
    """Turns each `STANDS_FOR` into the reference that it is, and each kept example back."""
    if isinstance(value, dict):
        if _EXAMPLE in value:
            return json.loads(value[_EXAMPLE])
        if STANDS_FOR in value:
            return {"$ref": _COMPONENT.format(model=value[STANDS_FOR])}
        return {key: _link(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_link(member) for member in value]
    return value


def _refusals(slugs: Sequence[str]) -> dict[str, Any]:
    content = {
        "schema": {"$ref": _COMPONENT.format(model="Problem")},
        "examples": {slug: {"value": _kept(examples.PROBLEMS[slug])} for slug in slugs},
    }
    return {
        "description": "; ".join(TITLES[slug][1] for slug in slugs),
        "content": {MEDIA_TYPE: content},
    }


def _kept(example: Any) -> dict[str, str]:
    # FastAPI drops every null from the document, also from examples; text it leaves alone.
    return {_EXAMPLE: json.dumps(example)}

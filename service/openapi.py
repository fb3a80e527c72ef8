"""The OpenAPI document: what FastAPI derives, with the spec, the genotype and the problems in it.

There is no `/docs` page of FastAPI's: it loads its scripts from a public CDN, and Dartboard runs
on closed networks. `/docs` is a page of our own without scripts, see `service.reference`.
"""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from search_core.genotype import CellGenotype
from search_core.spec import SearchSpec
from service import examples
from service import problems as problem_documents
from service.problems import Problem

TAGS: Final = [
    {"name": "searches", "description": "Submit a search, follow it, cancel it."},
    {"name": "trials", "description": "The runs of a search, one for each seed."},
    {"name": "events", "description": "What happened to a search, as a page and live."},
    {"name": "architectures", "description": "What searches found: JSON, text and pictures."},
    {"name": "queue", "description": "Who waits and why, who runs, and on what."},
    {"name": "presets", "description": "Specs to start from."},
    {"name": "service", "description": "The API about itself."},
]

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
        location: Whether the header Location names what was made.
    """
    response: dict[str, Any] = {
        "description": description,
        "content": {"application/json": {"example": example}},
    }
    if model is not None:
        response["model"] = model
    if location:
        response["headers"] = {
            "Location": {"description": "Path of the new search.", "schema": {"type": "string"}}
        }
    return response


def media(description: str, contents: Mapping[str, Any]) -> dict[str, Any]:
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


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals that an operation has, each with an example."""
    return {status: _problem(HTTPStatus(status)) for status in statuses}


def spec_body(specs: Mapping[str, Any]) -> dict[str, Any]:
    """The request body of an operation that takes a spec.

    Args:
        specs: Examples by name, each with `summary` and `value`.
    """
    schema = {"$ref": _COMPONENT.format(model="SearchSpec")}
    content = {"application/json": {"schema": schema, "examples": dict(specs)}}
    return {"requestBody": {"required": True, "content": content}}


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
        [(SearchSpec, "validation"), (CellGenotype, "validation"), (Problem, "serialization")],
        ref_template=_COMPONENT,
    )
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    components |= extra["$defs"]
    components["Genotype"] = components.pop("CellGenotype")
    schema["components"]["schemas"] = dict(sorted(components.items()))
    return schema


def _problem(status: HTTPStatus) -> dict[str, Any]:
    example = examples.PROBLEMS[status]
    titles = [title for each, title in problem_documents.TITLES.values() if each == status]
    return {
        "description": "; ".join(titles),
        "content": {
            problem_documents.MEDIA_TYPE: {
                "schema": {"$ref": _COMPONENT.format(model="Problem")},
                "example": example,
            }
        },
    }

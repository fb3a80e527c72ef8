"""A training of a stored architecture, named by its hash: the spec gets what the store knows.

A spec itself names a published architecture or holds a genotype. A genotype does not say which
operations its names stand for (`docs/decisions/0006`); the searches that found it do.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json
from sqlalchemy.orm import Session

from service.caller import Caller
from service.parameters import HASH_PATTERN
from service.problems import FieldProblem, ProblemError
from service.spec_body import invalid_spec
from store import architectures
from store.errors import NotFoundError


@dataclass(frozen=True)
class _Stored:
    genotype: dict[str, Any]
    families: tuple[str, ...]


async def with_stored_architecture(body: bytes, caller: Caller) -> bytes:
    """A spec's JSON, with what the store knows of an architecture in the place of its hash.

    That is its genotype, and the operation family of the searches that found it, unless the spec
    names a family itself.

    Args:
        body: JSON that need not be a valid spec.
        caller: Who submits it.

    Returns:
        The same, if it names no architecture by a hash.

    Raises:
        ProblemError: No architecture has this hash; or searches of different families found it,
            and the spec does not choose.
    """
    try:
        value = from_json(body)
    except ValueError:  # nested too deeply; whoever reads the spec says so
        return body
    key = value.get("architecture") if isinstance(value, dict) else None
    if not (isinstance(key, str) and re.fullmatch(HASH_PATTERN, key)):
        return body
    try:
        stored = await caller.run(lambda session, _: _stored(session, key))
    except NotFoundError as error:
        message = f"there is {error}; GET /v1/searches/{{id}}/architectures lists those of a search"
        raise _refusal("/architecture", message) from None
    value["architecture"] = stored.genotype
    _fill_in_family(value, key, stored.families)
    return json.dumps(value).encode()


def _fill_in_family(value: dict[str, Any], key: str, families: tuple[str, ...]) -> None:
    network = value.get("network", {})
    # A network that is no object is for whoever reads the spec to refuse.
    if not families or not isinstance(network, dict) or network.get("family") is not None:
        return
    if len(families) > 1:
        raise _refusal(
            "/network/family",
            f"searches of different families found this architecture ({', '.join(families)}), in "
            "which its primitives are different operations; choose one. "
            f"GET /v1/architectures/{key} names the searches",
        )
    value["network"] = {**network, "family": families[0]}


def _stored(session: Session, architecture_hash: str) -> _Stored:
    return _Stored(
        genotype=architectures.get(session, architecture_hash).genotype,
        families=tuple(architectures.families(session, architecture_hash)),
    )


def _refusal(pointer: str, message: str) -> ProblemError:
    return invalid_spec([FieldProblem(pointer=pointer, message=message)])

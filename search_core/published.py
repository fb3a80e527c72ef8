"""Published architectures by name. Free of torch; the facts are in `published.json`."""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

from search_core.errors import UnknownNameError
from search_core.genotype import Genotype, parse
from search_core.spec.primitives import Family


@dataclass(frozen=True)
class PublishedArchitecture:
    """An architecture of the literature.

    Attributes:
        name: Its name in the published code.
        genotype: The architecture.
        family: Which operations the authors' primitive names stand for; None for a path, whose
            operations have one meaning.
        source: Where it was published.
    """

    name: str
    genotype: Genotype
    family: Family | None
    source: str


def names() -> tuple[str, ...]:
    """The names of all published architectures."""
    return tuple(_all())


def get(name: str) -> PublishedArchitecture:
    """One published architecture.

    Args:
        name: Its name, such as "DARTS_V2".

    Returns:
        The architecture.

    Raises:
        UnknownNameError: There is none of that name; the message lists all names.
    """
    architecture = _all().get(name)
    if architecture is None:
        raise UnknownNameError(
            f"no published architecture {name!r}; choose from: {', '.join(names())}"
        )
    return architecture


@cache
def _all() -> dict[str, PublishedArchitecture]:
    text = resources.files("search_core").joinpath("published.json").read_text(encoding="utf-8")
    return {
        name: PublishedArchitecture(
            name=name,
            genotype=parse(json.dumps(entry["genotype"])),
            family=entry["family"],
            source=entry["source"],
        )
        for name, entry in json.loads(text).items()
    }

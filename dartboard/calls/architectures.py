"""What searches found."""

from typing import Literal

from dartboard.calls.refs import SearchId, path_of
from dartboard.errors import (
    UnexpectedAnswerError,
)
from dartboard.lists import Page
from dartboard.models import (
    Architecture,
    RankedArchitecture,
)
from dartboard.transport import Transport, parse_answer, segment
from search_core.errors import InvalidGenotypeError
from search_core.genotype import Genotype, parse

Cell = Literal["normal", "reduce"]


class ArchitectureCalls:
    """The calls of `dartboard.Client` about what searches found."""

    _transport: Transport

    def architectures(self, search_id: SearchId) -> tuple[RankedArchitecture, ...]:
        """What the trials of a search derived, the recommended one first.

        Raises:
            NotFoundError: There is no such search.
        """
        response = self._transport.get(f"{path_of(search_id)}/architectures")
        return parse_answer(response, Page[RankedArchitecture]).items

    def architecture(self, architecture_hash: str) -> Architecture:
        """An architecture, and which trials found it.

        Raises:
            NotFoundError: There is none with this hash.
        """
        path = f"/v1/architectures/{segment(architecture_hash)}"
        return parse_answer(self._transport.get(path), Architecture)

    def genotype(self, architecture_hash: str) -> Genotype:
        """An architecture's genotype alone.

        Raises:
            NotFoundError: There is none with this hash.
        """
        response = self._transport.get(f"/v1/architectures/{segment(architecture_hash)}.json")
        try:
            return parse(response.text)
        except InvalidGenotypeError as error:
            raise UnexpectedAnswerError(
                f"the server's genotype is one that this version cannot read: {error}"
            ) from error

    def picture(
        self,
        architecture_hash: str,
        cell: Cell | None = None,
        format: Literal["svg", "dot"] = "svg",  # noqa: A002  (reads well where it is called)
    ) -> bytes:
        """A drawing of an architecture.

        Args:
            architecture_hash: Which one.
            cell: One of its two cells; None draws both. A path has none.
            format: An SVG picture, or Graphviz's DOT.

        Raises:
            NotFoundError: There is none with this hash.
        """
        path = f"/v1/architectures/{segment(architecture_hash)}.{format}"
        return self._transport.get(path, params={"cell": cell}, accept="*/*").content

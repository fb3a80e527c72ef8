"""`profile`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from dartboard.cli import output
from dartboard.cli.options import Json
from dartboard.errors import LocalError

if TYPE_CHECKING:
    from search_core.genotype import Genotype

_FORMS: Final = {
    "cifar": {"channels": 36, "cells": 20, "classes": 10, "image_size": 32},
    "imagenet": {"channels": 48, "cells": 14, "classes": 1000, "image_size": 224},
}
"""The size that the papers give a network of each form."""


def profile(
    architecture: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE|-",
            help="A published architecture, such as DARTS_V2; or a file with a genotype in JSON "
            "or text form, - for stdin.",
        ),
    ],
    form: Annotated[
        Literal["cifar", "imagenet"] | None,
        typer.Option(help="The network's stem; of cells. Default: cifar."),
    ] = None,
    family: Annotated[
        Literal["darts", "sharp"] | None,
        typer.Option(help="The operations; of cells. Default: as published; darts for a file."),
    ] = None,
    channels: Annotated[
        int | None,
        typer.Option(min=1, help="Of the first cell. Default: 36; ImageNet form 48."),
    ] = None,
    cells: Annotated[
        int | None, typer.Option(min=1, help="Depth in cells. Default: 20; ImageNet form 14.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=1, help="Default: 10; ImageNet form 1000.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Height and width. Default: 32; ImageNet form 224.")
    ] = None,
    image_channels: Annotated[int, typer.Option(min=1, help="3 is colour, 1 is grey.")] = 3,
    as_json: Json = False,
) -> None:
    """Count the parameters and multiply-adds of an architecture's network.

    For one image, without the auxiliary head. The paper's count (arXiv 1903.09900) also charges
    normalisations, activations and pools. A path through a HyperCuboid says all of its network:
    --form, --family, --channels and --cells are for cells. With --json: `parameters`,
    `multiply_adds` and `paper_multiply_adds`.
    """
    genotype, published_family = _read(architecture)
    sizes = _FORMS[form or "cifar"]
    side = image_size or sizes["image_size"]
    request = {
        "genotype": genotype.to_json(),
        "classes": classes or sizes["classes"],
        "image_shape": (image_channels, side, side),
    }
    if genotype.kind == "path":
        of_cells = {
            "--form": form, "--family": family, "--channels": channels, "--cells": cells
        }  # fmt: skip
        _refuse(architecture, [name for name, value in of_cells.items() if value is not None])
    else:
        if form == "imagenet" and channels == 1:
            raise typer.BadParameter(
                "--form imagenet halves --channels in its stem: it needs 2 or more"
            )
        request |= {
            "form": form or "cifar",
            "family": family or published_family or "darts",
            "channels": channels or sizes["channels"],
            "cells": cells or sizes["cells"],
        }
    counts = _ask(request)
    if as_json:
        output.print_json(counts)
        return
    for label, name in (
        ("parameters", "parameters"),
        ("multiply-adds", "multiply_adds"),
        ("multiply-adds as the paper counts", "paper_multiply_adds"),
    ):
        print(f"{label:34}{counts[name]:>18,}")


def _read(architecture: str) -> tuple["Genotype", str | None]:
    """The genotype, and the family that it was published with, if it was."""
    from search_core import published
    from search_core.errors import InvalidGenotypeError
    from search_core.genotype import parse

    if architecture in published.names():
        found = published.get(architecture)
        return found.genotype, found.family
    try:
        if architecture == "-":
            text = sys.stdin.read()
        else:
            text = Path(architecture).read_text(encoding="utf-8")
        return parse(text), None
    except FileNotFoundError:
        raise typer.BadParameter(
            f"{architecture} is neither a file nor a published architecture; those are: "
            f"{', '.join(published.names())}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{architecture} cannot be read: {error}") from None
    except InvalidGenotypeError as error:
        raise typer.BadParameter(f"{architecture}: {error}") from None


def _refuse(architecture: str, options: list[str]) -> None:
    """Refuses options that mean nothing for a path."""
    if options:
        what = "standard input" if architecture == "-" else architecture
        raise typer.BadParameter(
            f"{what} is a path, which says all of its network; leave out {', '.join(options)}"
        )


def _ask(request: dict[str, Any]) -> dict[str, Any]:
    """Lets a process of its own count: the network is PyTorch's, which this one never loads."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "search_core.profile_command"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise LocalError(f"the process that profiles broke off: {last}") from None
    if answer.get("error") == "invalid":
        raise typer.BadParameter(answer["message"])
    if answer.get("error") == "missing":
        raise LocalError(
            f"profiling builds the network with PyTorch, which is not here: {answer['message']}; "
            "install it with `pip install 'dartboard[workers]'`"
        )
    return answer

"""Profiles an architecture in a process of its own: a JSON request on stdin, an answer on stdout.

For programs that must not import torch themselves, such as the `dartboard` command. The request
has `genotype` (its JSON form as a string), `classes` and `image_shape`, and of cells `form`,
`family`, `channels` and `cells` besides; the answer has the counts of
`search_core.profile.Profile`, or `error` and a sentence.
"""

import json
import sys
from dataclasses import asdict
from typing import Any


def main() -> int:
    """Answers one request.

    Returns:
        The exit code: 0 with counts; 1 with `error` `invalid` where the request is wrong, or
        `missing` where PyTorch is.
    """
    request = json.loads(sys.stdin.read())
    try:
        answer, code = _counts(request), 0
    except ImportError as error:
        answer, code = {"error": "missing", "message": str(error)}, 1
    except ValueError as error:  # as every error of a genotype, a form or a family is
        answer, code = {"error": "invalid", "message": str(error)}, 1
    sys.stdout.write(json.dumps(answer) + "\n")
    return code


def _counts(request: dict[str, Any]) -> dict[str, Any]:
    from search_core.cuboid_size import path_cost
    from search_core.genotype import PathGenotype, parse

    image_shape = tuple(request.pop("image_shape"))
    genotype = parse(request.pop("genotype"))
    if isinstance(genotype, PathGenotype):  # counted from its description, without PyTorch
        return asdict(path_cost(genotype, image_shape, num_classes=request["classes"]))

    from search_core import networks
    from search_core.profile import profile

    # Only shapes matter, but the meta device would take longer to import than this to compute.
    network = networks.build(genotype, image_shape=image_shape, **request)
    return asdict(profile(network, image_shape))


if __name__ == "__main__":
    sys.exit(main())

"""Reading genotypes from their JSON and text forms, without evaluating anything."""

import ast

from pydantic import TypeAdapter, ValidationError

from search_core.errors import InvalidGenotypeError
from search_core.genotype.cell import CellGenotype
from search_core.genotype.kinds import Genotype
from search_core.genotype.path import PathGenotype

_TEXT_LIMIT = 100_000
_STEP_FIELDS = ("level", "stride", "in_channels", "out_channels", "operation", "settings")
_NUM_PLAIN_STEP_FIELDS = 5

_ANY_KIND: TypeAdapter[Genotype] = TypeAdapter(Genotype)


def parse(text_or_json: str) -> Genotype:
    """Reads a genotype from its JSON or its text form.

    Args:
        text_or_json: `{"kind": "cell", ...}`, `{"kind": "path", ...}`, the published
            `Genotype(normal=[('sep_conv_3x3', 0), ...], ...)`, or
            `Path(final_channels=768, steps=[(0, 1, 32, 32, 'sharp_sep_conv'), ...])`.

    Returns:
        The genotype.

    Raises:
        InvalidGenotypeError: The text is in no such form, or describes no architecture; the
            message says what is wrong and where.
    """
    text = text_or_json.strip()
    if len(text) > _TEXT_LIMIT:
        raise InvalidGenotypeError(
            f"a genotype of {len(text):,} characters; the longest allowed has {_TEXT_LIMIT:,}"
        )
    try:
        if text.startswith("{"):
            return _ANY_KIND.validate_json(text)
        name, fields = _read_call(text)
        if name == "Path":
            return PathGenotype.model_validate(_with_named_steps(fields))
        return CellGenotype.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        # The union's tag is no place in the text. A model's own errors name the field below it.
        below = first.get("ctx", {}).get("path", ())
        place = ".".join(
            str(part) for part in (*first["loc"], *below) if part not in ("cell", "path")
        )
        message = first["msg"].removeprefix("Value error, ")
        raise InvalidGenotypeError(f"{place}: {message}" if place else message) from None


def _read_call(text: str) -> tuple[str, dict[str, object]]:
    try:
        expression = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        expression = None
    if not (
        isinstance(expression, ast.Call)
        and isinstance(expression.func, ast.Name)
        and expression.func.id in ("Genotype", "Path")
        and not expression.args
    ):
        raise InvalidGenotypeError(
            "not a genotype: expected JSON that starts with '{', "
            "Genotype(normal=[...], normal_concat=[...], reduce=[...], reduce_concat=[...]) or "
            "Path(final_channels=..., steps=[...])"
        )
    name = expression.func.id
    fields: dict[str, object] = {}
    for keyword in expression.keywords:
        if keyword.arg is None or keyword.arg in ("kind", "version"):
            known = "the four published fields" if name == "Genotype" else "final_channels, steps"
            raise InvalidGenotypeError(f"{name}(...) takes {known} only")
        try:
            fields[keyword.arg] = _read_value(keyword.value)
        except (ValueError, TypeError, RecursionError, MemoryError):
            raise InvalidGenotypeError(
                f"{keyword.arg}: expected a list of literal values"
            ) from None
    return name, fields


def _read_value(node: ast.expr) -> object:
    # Published genotypes write concatenations as range(2, 6) as often as [2, 3, 4, 5].
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "range"
        and not node.keywords
    ):
        bounds = [ast.literal_eval(argument) for argument in node.args]
        states = range(*bounds)
        if len(states) > _TEXT_LIMIT:
            raise ValueError("range too long")
        return list(states)
    return ast.literal_eval(node)


def _with_named_steps(fields: dict[str, object]) -> dict[str, object]:
    steps = fields.get("steps")
    if not isinstance(steps, list | tuple):
        return fields
    named: list[object] = []
    for index, step in enumerate(steps):
        if not isinstance(step, tuple) or len(step) not in (
            _NUM_PLAIN_STEP_FIELDS,
            len(_STEP_FIELDS),
        ):
            raise InvalidGenotypeError(
                f"steps[{index}]: expected a tuple (level, stride, in_channels, out_channels, "
                "operation) with a dict of settings after it, if there are any"
            )
        named.append(dict(zip(_STEP_FIELDS, step, strict=False)))
    return {**fields, "steps": named}

"""`/docs`: the OpenAPI document as one page for people, with no script and nothing from elsewhere.

FastAPI's own page loads its scripts from a public CDN and stays empty on a closed network. This one
is plain HTML, made from the same document that `/openapi.json` serves.
"""

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); }
article { margin: 1.5rem 0; padding: .2rem 1rem; }
article { border: 1px solid var(--line); border-radius: 8px; }
h3 { margin: .6rem 0; font-size: 1rem; font-weight: 600; }
code, pre { font: .85rem/1.45 ui-monospace, monospace; }
pre { background: var(--soft); padding: .8rem; overflow: auto; max-height: 28rem; }
.method { display: inline-block; min-width: 3.4rem; font-weight: 700; }
table { border-collapse: collapse; } td { padding: .15rem .8rem .15rem 0; vertical-align: top; }
details { margin: .4rem 0; } summary { cursor: pointer; }
nav a { margin-right: 1rem; }
"""


@router.get("/docs")
async def read_reference(request: Request) -> HTMLResponse:
    """The page."""
    page = render(request.app.openapi())
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return HTMLResponse(page, headers={"Content-Security-Policy": policy})


def render(document: Mapping[str, Any]) -> str:
    """The page of an OpenAPI document.

    Args:
        document: The document, with a tag on every operation.
    """
    info = document["info"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    links = "".join(
        f'<a href="#{tag["name"]}">{escape(tag["name"])}</a>' for tag in document["tags"]
    )
    sections = "".join(_section(document, tag) for tag in document["tags"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{_STYLE}</style><h1>{title}</h1>{_prose(info['description'])}"
        f'<nav>{links}<a href="openapi.json">openapi.json</a></nav>{sections}</html>'
    )


def _section(document: Mapping[str, Any], tag: Mapping[str, str]) -> str:
    operations = "".join(
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if tag["name"] in operation["tags"]
    )
    name = escape(tag["name"])
    return f'<h2 id="{name}">{name}</h2>{_prose(tag["description"])}{operations}'


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    body = operation.get("requestBody")
    return (
        f'<article><h3><span class="method">{method.upper()}</span> '
        f"<code>{escape(path)}</code></h3>"
        f"<p><b>{escape(operation['summary'])}.</b></p>{_prose(operation['description'])}"
        + _parameters(operation.get("parameters", []))
        + ("" if body is None else "".join(_examples("Body", body)))
        + "".join(
            example
            for status, response in sorted(operation["responses"].items())
            for example in _examples(f"{status} {response['description']}", response)
        )
        + "</article>"
    )


def _parameters(parameters: list[Mapping[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(parameter['name'])}</code></td><td>{escape(parameter['in'])}</td>"
        f"<td>{_inline(parameter.get('description', ''))}</td></tr>"
        for parameter in parameters
    )
    return f"<table>{rows}</table>" if rows else ""


def _examples(title: str, holder: Mapping[str, Any]) -> Iterator[str]:
    """Each example of a body or of a response, folded; the title alone where there is none."""
    if not holder.get("content"):
        yield f"<p>{_inline(title)}</p>"
    for media_type, content in holder.get("content", {}).items():
        named = content.get("examples") or {"": {"value": content["example"]}}
        for name, example in named.items():
            value = example["value"]
            text = value if isinstance(value, str) else json.dumps(value, indent=2)
            label = f"{title.rstrip('.')}, {media_type}" + (
                f": {example.get('summary', name)}" * bool(name)
            )
            yield (
                f"<details><summary>{_inline(label)}</summary><pre>{escape(text)}</pre></details>"
            )


def _prose(text: str) -> str:
    return "".join(f"<p>{_inline(paragraph)}</p>" for paragraph in text.split("\n\n"))


def _inline(text: str) -> str:
    # What stands between backticks is code; every second piece of the split does.
    pieces = escape(text).split("`")
    return "".join(
        f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces)
    )

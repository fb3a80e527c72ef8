"""Answers that a client may keep: tagged by their content, and 304 to who has it already."""

import hashlib

from fastapi import Request, Response

IMMUTABLE = "public, max-age=31536000, immutable"
"""For what never changes, since its path names its content."""
REVALIDATED = "no-cache"
"""For what changes: it may be kept, but has to be asked for again."""


def tagged(request: Request, content: bytes, media_type: str, *, cache: str) -> Response:
    """An answer with its tag.

    Args:
        request: May name the tags that its sender has.
        content: The body.
        media_type: Its type.
        cache: `IMMUTABLE` or `REVALIDATED`.

    Returns:
        The content, or 304 without it.
    """
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": cache, "X-Content-Type-Options": "nosniff"}
    known = request.headers.get("if-none-match", "")
    if known.strip() == "*" or tag in (
        each.strip().removeprefix("W/") for each in known.split(",")
    ):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)

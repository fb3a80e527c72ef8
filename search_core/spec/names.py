"""What people may call things."""

from typing import Annotated, Final

from pydantic import StringConstraints

PRINTABLE: Final = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]*$"
"""Text of one line without control characters: neither those that a terminal obeys, nor those that
turn the direction of what follows. Others than who chose the name will print it."""

Name = Annotated[str, StringConstraints(max_length=200, pattern=PRINTABLE)]
"""A name, for people; it need not be unique."""

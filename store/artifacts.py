"""Where a deployment keeps checkpoints and logs: a folder, or a URL of an object store.

`DARTBOARD_STORAGE` names the root. Below it, `SEARCH/trial-N/` has the checkpoints of a trial and
`SEARCH/logs/` what its runners and trials wrote. pyarrow is imported only for a URL, so that a
process whose storage is a folder needs none.
"""

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit
from uuid import UUID

from search_core.storage import Folder, Storage, StorageError

_HARMLESS: Final = frozenset(
    {"endpoint_override", "region", "scheme", "allow_bucket_creation", "allow_delayed_open"}
)
"""Parameters of a URL whose values may be shown."""

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class ArtifactFolder:
    """A folder of the artifact storage, by name: nothing is opened yet.

    Attributes:
        root: The folder or URL that `DARTBOARD_STORAGE` names. It may hold credentials, and is not
            shown.
        path: The folder below it, with slashes.
    """

    root: str = field(repr=False)
    path: str = ""

    def __truediv__(self, name: str) -> Self:
        return type(self)(self.root, f"{self.path}/{name}" if self.path else name)

    def open(self) -> Storage:
        """The storage of this folder.

        Raises:
            StorageError: The root is no folder and no URL that can be opened.
        """
        if not is_url(self.root):
            return Folder(Path(self.root) / self.path)
        parts = urlsplit(self.root)
        if parts.scheme == "file":
            if parts.netloc not in ("", "localhost"):
                raise StorageError(f"{redacted(self.root)} is on another machine: mount it")
            return Folder(Path(unquote(parts.path)) / self.path)
        # Here and not above: a folder needs no pyarrow.
        from store.object_storage import open_url

        return open_url(self.root, self.path)


def remove(folder: ArtifactFolder) -> None:
    """Removes a folder with all that is below it; one that is gone already is no error.

    Raises:
        StorageError: The storage does not answer, or something is left.
    """
    assert folder.path, "the root holds what is everybody's"
    storage = folder.open()
    if not isinstance(storage, Folder):
        from store.object_storage import ObjectStorage

        assert isinstance(storage, ObjectStorage)
        storage.remove()
        return
    try:
        shutil.rmtree(storage.path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"cannot remove {storage.path}: {error}") from error


def is_url(root: str) -> bool:
    """Whether a root is a URL and not the path of a folder."""
    return bool(_SCHEME.match(root))


def logs_of(root: str, job_id: UUID) -> ArtifactFolder:
    """The folder of what the runners and trials of a search or training wrote."""
    return ArtifactFolder(root) / str(job_id) / "logs"


def checkpoints_of(root: str, job_id: UUID) -> ArtifactFolder:
    """The folder with a folder of checkpoints for each trial of a search or training."""
    return ArtifactFolder(root) / str(job_id)


def redacted(root: str) -> str:
    """A folder or URL for people: without what may be a credential."""
    if not is_url(root):
        return root
    parts = urlsplit(root)
    host = parts.netloc.rpartition("@")[2]
    query = "&".join(
        f"{name}={redacted(value) if name in _HARMLESS else '***'}"
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    )
    shown = f"***@{host}" if "@" in parts.netloc else host
    return urlunsplit((parts.scheme, shown, parts.path, query, ""))

"""Searches and trainings, by their ids or as they were answered."""

from uuid import UUID

from dartboard.models import Job, Search, Training
from dartboard.transport import segment

SearchId = UUID | str
JobRef = SearchId | Search | Training
"""A search, by its id or as it was answered; or a training, as it was answered."""


def path_of(job: JobRef) -> str:
    """Where it is."""
    if isinstance(job, Job):
        kind = "trainings" if isinstance(job, Training) else "searches"
        return f"/v1/{kind}/{job.id}"
    return f"/v1/searches/{segment(job)}"


def name_of(job: JobRef) -> str:
    """What it is called in a sentence."""
    if isinstance(job, Job):
        return f"{'training' if isinstance(job, Training) else 'search'} {job.id}"
    return f"search {job}"


def model_of(job: JobRef) -> type[Search] | type[Training]:
    """What it is answered as."""
    return Training if isinstance(job, Training) else Search

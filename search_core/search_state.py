"""What a search run is saved as, and how another one goes on from there."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Final, TypeVar

import torch

from search_core.data import Batches
from search_core.epoch_training import EpochSums, EpochTraining
from search_core.finalists import FinalistsRun
from search_core.relaxation_in_use import RelaxationInUse
from search_core.schedules import ListedLR
from search_core.spec.search import SearchSpec
from search_core.states import check_origin, load_optimizer, origin, snapshot
from search_core.supernet import Supernet

_VERSION: Final = 5


@dataclass(frozen=True)
class Position:
    """How far a search itself is; how far its present epoch is, `EpochTraining` knows.

    Attributes:
        epoch: Completed epochs, without those of finalists.
        collapsed_epochs: In a row, up to the last completed one.
    """

    epoch: int = 0
    collapsed_epochs: int = 0


_Fields = TypeVar("_Fields", Position, EpochSums)


@dataclass(frozen=True)
class SearchParts:
    """All that a run's future depends on, besides its position.

    Attributes:
        network: The supernet.
        training: Its steps, with both optimizers and the sums of the present epoch.
        scheduler: Of the weights' learning rate.
        train_batches: Of the weights' half.
        validation_batches: Of the alphas' half.
        paths: What paths are drawn by.
        relaxation: Which form is in use, and why.
        finalists: What is trained after the search's own epochs, if anything.
    """

    network: Supernet
    training: EpochTraining
    scheduler: ListedLR
    train_batches: Batches
    validation_batches: Batches
    paths: torch.Generator
    relaxation: RelaxationInUse
    finalists: FinalistsRun | None

    def save(self, spec: SearchSpec, seed: int, position: Position) -> dict[str, Any]:
        """A snapshot of tensors, numbers, strings, lists, dicts and None only.

        Args:
            spec: What is searched.
            seed: The trial's.
            position: Where the run is.
        """
        step = self.training.step
        state = {
            **origin(_VERSION, _settings(spec), seed),
            "network": dict(self.network.state_dict()),
            "weight_optimizer": step.weight_optimizer.state_dict()["state"],
            "architecture_optimizer": step.architecture_optimizer.state_dict()["state"],
            "scheduler": self.scheduler.state_dict(),
            "train_batches": self.train_batches.state_dict(),
            "validation_batches": self.validation_batches.state_dict(),
            "paths": self.paths.get_state(),
            "relaxation": self.relaxation.state_dict(),
            "position": asdict(position) | asdict(self.training.sums),
            "finalists": None if self.finalists is None else self.finalists.state_dict(),
        }
        return {name: snapshot(value) for name, value in state.items()}

    def load(self, spec: SearchSpec, seed: int, state: dict[str, Any]) -> Position:
        """Brings the parts to where those were that were saved.

        Args:
            spec: What is searched.
            seed: The trial's.
            state: What `save` returned.

        Returns:
            The position there.

        Raises:
            CheckpointError: The state is of another version, spec or seed.
        """
        check_origin(state, _VERSION, _settings(spec), seed)
        step = self.training.step
        self.network.load_state_dict(state["network"])
        load_optimizer(step.weight_optimizer, state["weight_optimizer"])
        load_optimizer(step.architecture_optimizer, state["architecture_optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.train_batches.load_state_dict(state["train_batches"])
        self.validation_batches.load_state_dict(state["validation_batches"])
        self.paths.set_state(state["paths"].cpu())
        self.relaxation.load_state_dict(state["relaxation"])
        self.training.go_on_from(_of_fields(EpochSums, state["position"]))
        self.training.forget()
        if self.finalists is not None:
            self.finalists.load_state_dict(state["finalists"])
        return _of_fields(Position, state["position"])


def _of_fields(kind: type[_Fields], values: dict[str, Any]) -> _Fields:
    """A dataclass of those values that are its fields."""
    return kind(**{field.name: values[field.name] for field in fields(kind)})


def _settings(spec: SearchSpec) -> str:
    """The part of a spec that changes numbers, as JSON."""
    return spec.model_dump_json(
        include={"space", "dataset", "augmentation", "algorithm", "training"},
        # Where the images lie changes none of them.
        exclude={"dataset": {"root", "download"}},
    )

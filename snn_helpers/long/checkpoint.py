"""The file that keeps a training run, whole or not at all, so that it can be cut off and go on; used in chapter 03."""

from __future__ import annotations

import contextlib
import io
import json
import numbers
import os
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .divergence import check_weights
from .examples import Examples
from .files import write_whole
from .plain import plain
from .processes import ProcessGroup


class CheckpointError(RuntimeError):
    """A checkpoint is damaged, or belongs to another run; the file is left as it was."""


class Checkpoint:
    """A file that holds how far a run is, and all that it needs to go on; without a path, nothing is ever kept.

    `run` says what must be the same for the file to be continued, besides the settings of the model and the data sets.
    The model, the history, the generator of the order and those of the group are what is kept.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        run: dict[str, Any],
        model: nn.Module,
        examples: Examples,
        test: Examples | None,
        group: ProcessGroup,
        order: torch.Generator,
        history: Any,
    ) -> None:
        self.path = None if path is None else Path(path)
        self.run, self.model, self.group, self.order, self.history = run, model, group, order, history
        self.resumed: Path | None = None  # the file, once it has been taken up
        if self.path is not None:
            self.run = {"network": settings_of(model), "device": examples.device.type}
            self.run |= {"n_examples": len(examples), **run}
            # As many images may still be other ones.
            self.run["training data"] = examples.identity()
            self.run["test data"] = None if test is None else test.identity()
            self.run["tested after each epoch"] = test is not None

    def load(self) -> tuple[int, int, dict[str, Any] | None]:
        """Take up what the file holds, if it is there: the epoch, the batch, the state of the optimiser to go on with.

        Raises `CheckpointError` if the file is damaged or belongs to another run, before anything is changed; and if
        the processes do not find the same file.
        """
        epoch, batch, optimizer = 0, 0, None
        if self.path is not None and self.path.exists():
            saved, self.resumed = self._read(self.path), self.path
            self.model.load_state_dict(saved["model"])
            self.order.set_state(saved["order"])
            for generator, state in zip(self.group.noise, saved["noise"]):
                generator.set_state(state)
            self.history.restore(saved["history"])
            epoch, batch, optimizer = saved["epoch"], saved["batch"], saved["optimizer"]
        places = self.group.all_places(epoch, batch, next(self.model.parameters()).device)
        if len(set(places)) > 1:
            raise CheckpointError(
                f"the processes disagree about where to go on: (epochs, batches) done are {places}. All of them must"
                " see the same checkpoint: put it into a folder that every machine shares."
            )
        return epoch, batch, optimizer

    def save(self, epoch: int, batch: int, order: Tensor, optimizer: torch.optim.Optimizer | None) -> None:
        """Write the file anew: the run goes on at this batch of this epoch, whose order starts from the state `order`.

        Raises `OSError` if it cannot be written; what the file held before is then still there. Raises
        `TrainingDiverged` instead of keeping weights that are not finite.
        """
        check_weights(self.model, len(self.history.loss), max(self.run["learning_rates"]))
        if self.path is None:
            return
        noise = self.group.noise_states(next(self.model.parameters()).device)
        if self.group.rank > 0:  # of several processes the first one writes
            return
        content = {
            "run": self.run,
            "model": self.model.state_dict(),
            "optimizer": None if optimizer is None else optimizer.state_dict(),
            "epoch": epoch,
            "batch": batch,
            "order": order,
            "noise": noise,
            "history": asdict(self.history),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        try:
            write_whole(self.path, buffer.getbuffer())
        except OSError as error:
            kept = f" {self.path} still holds what was saved before: call fit again, and it goes on from there."
            raise OSError(
                error.errno,
                f"the checkpoint {self.path} cannot be written ({error.strerror or error}; it takes"
                f" {buffer.getbuffer().nbytes / 1e6:.1f} MB). Make room, or name a file in an existing folder that can"
                f" be written.{kept if os.path.isfile(self.path) else ''}",
            ) from error

    def _read(self, path: Path) -> dict[str, Any]:
        run, mend = self.run, "Move the file away to start afresh, or name another one."
        try:
            # torch itself overlooks changed bytes; the archive that it writes holds checksums.
            with zipfile.ZipFile(path) as archive:
                if (damaged := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(f"wrong checksum of its part {damaged}")
                # No checksum covers the mark of a folder, whose content torch would not read.
                if any(part.external_attr & 0x10 for part in archive.infolist()):
                    raise zipfile.BadZipFile("a part of it is marked as a folder")
            saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            old = saved["run"]
            differing = {name: (old.get(name), run[name]) for name in run if old.get(name) != run[name]}
            shapes = _shapes(saved["model"])
        except Exception as error:
            raise CheckpointError(f"{path} cannot be read as a checkpoint of fit ({error}). {mend}") from error
        if shapes != _shapes(self.model.state_dict()):
            differing["the weights' shapes"] = (shapes, _shapes(self.model.state_dict()))
        if differing:
            told = "; ".join(_difference(name, *pair) for name, pair in differing.items())
            raise CheckpointError(f"{path} belongs to another run ({told}). {mend}")
        return saved


def settings_of(model: nn.Module) -> dict[str, Any]:
    """What a model is besides its weights: by module and name, the settings that are numbers, words or tuples of them.

    They are each module's public attributes, and what its `get_extra_state` gives. How a model is printed does not
    matter, nor the names of its classes, so that a descendant can take over. What a model counts as it runs must be a
    buffer, or have a name that begins with "_": else it would be taken for a setting.
    """
    settings: dict[str, Any] = {}
    for path, module in model.named_modules():
        place = f"{path}." if path else ""
        for name, value in vars(module).items():
            if name[0] != "_" and name != "training" and _is_plain(value):
                settings |= _flat(place + name, value)
        # A module without an extra state has torch's own method, which only fails.
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            extra = module.get_extra_state()
            with contextlib.suppress(TypeError, ValueError):
                if isinstance(extra, Tensor) and extra.dtype == torch.uint8:
                    extra = json.loads(bytes(extra.tolist()))
                settings |= _flat(place, extra) if isinstance(extra, dict) else _flat(f"{place}extra state", extra)
    return settings


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, numbers.Real)) or (isinstance(value, tuple) and all(map(_is_plain, value)))


def _flat(name: str, value: Any) -> dict[str, Any]:
    """Each plain value under its whole name; what has fields gives one for each of them."""
    value = value._asdict() if hasattr(value, "_asdict") else value
    if not isinstance(value, dict):
        value = plain(value)
        return {name: "nan" if value != value else value}  # NaN would differ from itself
    dot = "." if name and name[-1] != "." else ""
    return {key: part for field in value for key, part in _flat(f"{name}{dot}{field}", value[field]).items()}


def _shapes(state: dict[str, Any]) -> dict[str, list[int]]:
    # An extra state may be of any length; what it says is compared as settings.
    return {name: list(tensor.shape) for name, tensor in state.items() if name.split(".")[-1] != "_extra_state"}


def _difference(name: str, old: Any, new: Any) -> str:
    if isinstance(old, dict) and isinstance(new, dict) and name == "network":
        differing = [key for key in old | new if key not in old or key not in new or old[key] != new[key]]
        old, new = (
            ", ".join(f"{key}={part[key]!r}" for key in differing if key in part) or "nothing of that"
            for part in (old, new)
        )
    return f"{name}: {old} there, {new} here"

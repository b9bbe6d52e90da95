"""Several processes of `torch.distributed` that train one network together; `scaling_out` shows how."""

from __future__ import annotations

import contextlib

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .examples import Examples
from .seeds import seeded

PART_SEEDS = 1_000_003  # a part's random numbers start at the seed plus this, times the number of the part


class ProcessGroup:
    """The processes that train together, each on its share of a batch's parts; one, unless torch.distributed is on.

    Each part draws from a generator of its own, `noise[part]`, so that the number of processes does not matter.
    Raises `ValueError` if the processes cannot share the parts evenly.
    """

    def __init__(self, n_parts: int, seed: int, device: torch.device) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.size = dist.get_world_size() if together else 1
        self.rank = dist.get_rank() if together else 0
        if n_parts % self.size != 0:
            raise ValueError(
                f"{self.size} processes cannot share {n_parts} parts of a batch evenly: give fit parts={self.size}, or"
                f" a multiple of it, and the same number to every run that is to end with the same weights"
            )
        share = n_parts // self.size
        self.n_parts = n_parts
        self.noise = [seeded((seed + PART_SEEDS * part) % 2**63, device) for part in range(n_parts)]
        self.parts = range(self.rank * share, (self.rank + 1) * share)

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, with the first process's weights in all of them, and gradients averaged over them."""
        return model if self.size == 1 else DistributedDataParallel(model)

    def exchange(self, learner: nn.Module, part: int) -> contextlib.AbstractContextManager[None]:
        """Gradients are exchanged once a batch: after the last of this process's parts."""
        if isinstance(learner, DistributedDataParallel) and part != self.parts[-1]:
            return learner.no_sync()
        return contextlib.nullcontext()

    def stand_in(self, learner: nn.Module, examples: Examples, chosen: Tensor, part: int) -> None:
        """Without an example of its own a process still takes part in the exchange, with a gradient of 0."""
        if self.size > 1:
            with self.exchange(learner, part):
                image, _ = examples.read(chosen[:1], 0)
                (learner(image, generator=seeded(0, image.device)).sum() * 0).backward()

    def add_up(self, values: Tensor) -> Tensor:
        """The sum over the processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def noise_states(self, device: torch.device) -> list[Tensor]:
        """The states of all parts' generators, each from the process that draws from it."""
        states = [generator.get_state() for generator in self.noise]
        if self.size == 1:
            return states
        # As tensors: objects would be pickled. NCCL sends from GPU to GPU only.
        mine = torch.stack([states[part] for part in self.parts]).to(device)
        gathered = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(gathered, mine)
        # Cloned, since a generator misreads a state that is a view.
        return [state.clone() for state in torch.cat(gathered).cpu()]

    def all_places(self, epoch: int, batch: int, device: torch.device) -> list[tuple[int, ...]]:
        """Where each process is to go on: its (epoch, batch)."""
        if self.size == 1:
            return [(epoch, batch)]
        mine = torch.tensor([epoch, batch], device=device)
        found = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(found, mine)
        return [tuple(place.tolist()) for place in found]

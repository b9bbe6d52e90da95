"""A whole network on a flickering image, with its backward pass; the reasons are derived in `performance`.

The plain way, in `SpikingNet`, says what comes out. This does the same in pieces that fit the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd import Function

from ..long.autocast import full_precision
from ..long.checks import weight_and_bias
from ..neurons import Neuron
from .draws import LEVELS, draw_words, steps_at_once, words_for
from .scan import Scratch, backward_step, can_scan, forward_step, refuse_second_derivatives

# --- Memory that is used again ----------------------------------------------------------------------

Spare = dict[tuple[Any, ...], Tensor]  # blocks of memory that nobody uses now, by shape and dtype
MOST_SPARE = 4  # blocks that a network keeps
_spare: WeakKeyDictionary[nn.Module, Spare] = WeakKeyDictionary()  # it goes when its network goes


def release() -> None:
    """Give the memory that networks keep for their next batch back to the system."""
    for spare in _spare.values():
        spare.clear()


def _borrow(shape: Sequence[int], dtype: torch.dtype, like: Tensor, spare: Spare) -> Tensor:
    """Uninitialised memory; on a CPU what an earlier batch gave back, since fresh pages cost more than sums."""
    if like.device.type == "cpu" and type(like) is Tensor:
        block = spare.pop((tuple(shape), dtype), None)
        if block is not None:
            return block
    return torch.empty(*shape, dtype=dtype, device=like.device)


class _Loan:
    """Holds borrowed memory for as long as autograd holds this, then gives it back."""

    def __init__(self, tensor: Tensor, spare: Spare) -> None:
        self.tensor, self.spare = tensor, spare

    def __del__(self) -> None:
        if type(self.tensor) is Tensor and self.tensor.device.type == "cpu":
            self.spare[tuple(self.tensor.shape), self.tensor.dtype] = self.tensor
            while len(self.spare) > MOST_SPARE:
                self.spare.pop(next(iter(self.spare)), None)


# --- A network over time -----------------------------------------------------------------------------


class Plan(NamedTuple):
    """What the weights do not say: see `SpikingNet`."""

    n_steps: int
    begin_eval: int
    neurons: Sequence[Neuron]
    generator: torch.Generator | None
    shared: bool
    mixed: bool
    spare: Spare


class Frames:
    """What the first layer reads, some steps at a time, and the two products with it.

    A mask is a half plus a centred draw. The half is the same at all steps: its currents, `base`
    `[B, N]`, take one product for all of time. What is left are pieces of 16 bits, kept for the
    backward pass as they are; the frames are made of them twice, in the cache. In a mixed network the
    products are in bfloat16. A shared mask is as well put on the weights, W (m x) = (W m) x, where there
    are fewer of them than images.
    """

    def __init__(self, images: Tensor, weight: Tensor, plan: Plan, keep: bool, words: Tensor | None = None) -> None:
        self.images, self.weight, self.plan = images, weight, plan
        n_batch, n_inputs = images.shape
        n_neurons = len(weight)
        self.on_weights = plan.shared and n_batch > n_neurons
        self.n_values = n_inputs if plan.shared else images.numel()
        largest = n_neurons * n_batch if plan.shared else 1
        masked = weight if self.on_weights else images
        self.n_at_once = max(1, min(plan.n_steps - 1, steps_at_once(max(masked.numel(), largest), images.device)))
        dtype = torch.bfloat16 if plan.mixed else images.dtype
        self.narrow = images.to(dtype)
        self.scaled = masked.to(dtype) / LEVELS
        self.factors = torch.empty(self.n_at_once * len(masked), n_inputs, dtype=dtype, device=images.device)
        self.narrow_weight = weight.to(dtype)
        n_rows = plan.n_steps if keep else self.n_at_once
        shape = n_rows, words_for(self.n_values)
        self.words = _borrow(shape, torch.int64, images, plan.spare) if words is None else words
        self.products = torch.empty(self.n_at_once * n_batch * n_neurons, dtype=dtype, device=images.device)
        self.keep = keep

    def draw(self, start: int, stop: int) -> None:
        place = slice(start, stop) if self.keep else slice(0, stop - start)
        draw_words(self.words[place], self.plan.generator)

    def _centred(self, start: int, stop: int) -> Tensor:
        place = slice(start, stop) if self.keep else slice(0, stop - start)
        return self.words[place].view(torch.int16)[:, : self.n_values]

    def _make(self, start: int, stop: int) -> Tensor:
        """Masked images `[steps * B, n_inputs]`, or masked weights `[steps * N, n_inputs]`."""
        steps = stop - start
        made = self.factors[: steps * len(self.scaled)]
        if self.plan.shared:
            masks = self._centred(start, stop).to(made.dtype).unsqueeze(1)
            torch.mul(masks, self.scaled, out=made.view(steps, *self.scaled.shape))
        else:
            made.view(steps, -1).copy_(self._centred(start, stop)).view(steps, *self.scaled.shape).mul_(self.scaled)
        return made

    def currents(self, start: int, stop: int, base: Tensor, out: Tensor) -> None:
        """Draw the frames of these steps; write their currents, plus `base`, into `out` `[steps, B, N]`."""
        self.draw(start, stop)
        made = self._make(start, stop)
        steps, n_batch, n_neurons = out.shape
        if self.on_weights:
            product = self.products[: out.numel()].view(n_batch, steps * n_neurons)
            torch.mm(self.narrow, made.t(), out=product)
            out.copy_(product.view(n_batch, steps, n_neurons).transpose(0, 1)).add_(base)
        elif self.plan.mixed:
            product = self.products[: out.numel()].view(steps * n_batch, n_neurons)
            torch.mm(made, self.narrow_weight.t(), out=product)
            out.copy_(product.view_as(out)).add_(base)
        else:
            torch.mm(made, self.weight.t(), out=out.view(-1, n_neurons))
            out.add_(base)

    def add_to_gradient(self, start: int, stop: int, grad_currents: Tensor, grad_weight: Tensor) -> None:
        """The centred part of these steps' share of the weights' gradient."""
        steps, n_batch, n_neurons = grad_currents.shape
        if self.on_weights:
            masks = self._centred(start, stop).to(grad_weight.dtype).div_(LEVELS).unsqueeze(1)
            product = self.products[: grad_currents.numel()].view(n_batch, steps, n_neurons)
            product.copy_(grad_currents.transpose(0, 1))
            by_step = torch.mm(product.view(n_batch, -1).t(), self.narrow, out=self.factors[: steps * n_neurons])
            grad_weight.add_(by_step.view(steps, n_neurons, -1).mul(masks).sum(dim=0))
        elif self.plan.mixed:
            product = self.products[: grad_currents.numel()].view(-1, n_neurons)
            product.copy_(grad_currents.view(-1, n_neurons))
            grad_weight.add_(torch.mm(product.t(), self._make(start, stop)))
        else:
            grad_weight.addmm_(grad_currents.view(-1, n_neurons).t(), self._make(start, stop))


def _run(
    images: Tensor, weights: Sequence[Tensor], plan: Plan, keep: bool
) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    """The last layer's mean state `[B, N]`; with `keep` also the frames' words and what each layer handed out."""
    n_batch, n_steps, last = len(images), plan.n_steps, len(plan.neurons) - 1
    frames = Frames(images, weights[0], plan, keep)
    base = torch.addmm(weights[1], images, weights[0].t(), alpha=0.5)
    at_once = frames.n_at_once
    handed = [
        _borrow((n_steps, n_batch, len(bias)), images.dtype, images, plan.spare)
        if keep
        else images.new_empty(at_once + 1, n_batch, len(bias))
        for bias in weights[1::2]
    ]
    states = [images.new_zeros(n_batch, len(bias)) for bias in weights[1::2]]
    works = [Scratch(state) for state in states]
    currents = [images.new_empty(at_once, n_batch, len(bias)) for bias in weights[1::2]]
    for given in handed:
        given[0].zero_()
    total = torch.zeros_like(states[-1])
    for start in range(0, n_steps - 1, at_once):  # the last step's input is not seen
        stop = min(start + at_once, n_steps - 1)
        steps, first = stop - start, start if keep else 0
        for number, neuron in enumerate(plan.neurons):
            now = currents[number][:steps]
            if number == 0:
                frames.currents(start, stop, base, now)
            else:
                read = handed[number - 1][first : first + steps].flatten(0, 1)
                weight, bias = weights[2 * number : 2 * number + 2]
                torch.addmm(bias, read, weight.t(), out=now.view(-1, len(bias)))
            given, state = handed[number], states[number]
            for t, current in enumerate(now.unbind()):
                forward_step(current, state, state, given[first + t + 1], neuron, works[number])
                if number == last and start + t + 1 >= plan.begin_eval:
                    total.add_(state)
        if not keep:
            for given in handed:
                given[0].copy_(given[steps])
    frames.draw(n_steps - 1, n_steps)  # so that the generator has moved on as far as the flicker would move it
    return total.div_(n_steps - plan.begin_eval), frames.words if keep else None, handed


class ReadOut(Function):
    """Images `[B, n]` to the last layer's mean state `[B, N]`, with gradients by the weights."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, lent: set[int], images: Tensor, *weights: Tensor) -> Tensor:
        mean, words, handed = _run(images, weights, plan, keep=True)
        assert words is not None
        lent.update(
            block.data_ptr() for block in (words, *handed) if type(block) is Tensor and block.device.type == "cpu"
        )
        ctx.plan = plan
        ctx.save_for_backward(images, words, *handed)
        # Not saved there: up to torch 2.8, a parameter that is saved under hooks loses the hooks of its own gradient.
        ctx.weights = [(weight.detach(), weight._version) for weight in weights]
        return mean

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivatives()
        with full_precision(grad.device):
            return ReadOut._gradients(ctx, grad)

    @staticmethod
    def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        plan: Plan = ctx.plan
        n_steps, last = plan.n_steps, len(plan.neurons) - 1
        images, words, *handed = ctx.saved_tensors
        weights = [weight for weight, _ in ctx.weights]
        if any(weight._version != version for weight, version in ctx.weights):
            raise RuntimeError("images or weights were changed in place between the forward and the backward pass")
        frames = Frames(images, weights[0], plan, True, words)
        at_once = frames.n_at_once
        grad = grad / (n_steps - plan.begin_eval)
        grad_weights = [torch.zeros_like(weight) for weight in weights[::2]]
        works = [Scratch(given[0]) for given in handed]
        later = [torch.zeros_like(given[0]) for given in handed]  # the gradient by the next step's current
        summed = [torch.zeros_like(given[0]) for given in handed]  # over time
        grad_currents = [torch.empty_like(given[:at_once]) for given in handed]
        # By what a layer hands out; the place after the last is for the first of the steps that come later.
        grad_handed = [images.new_zeros(at_once + 1, *given.shape[1:]) for given in handed[:-1]]
        for start in reversed(range(0, n_steps - 1, at_once)):
            stop = min(start + at_once, n_steps - 1)
            steps = stop - start
            for number in reversed(range(last + 1)):
                grads = grad_currents[number][:steps]
                for t in reversed(range(steps)):
                    counts = number == last and start + t + 1 >= plan.begin_eval
                    backward_step(
                        grads[t],
                        later[number],
                        grad if counts else None,
                        None if number == last else grad_handed[number][t + 1],
                        handed[number][start + t + 1],
                        plan.neurons[number],
                        works[number],
                    )
                    later[number] = grads[t]
                    summed[number].add_(grads[t])
                if number == 0:
                    frames.add_to_gradient(start, stop, grads, grad_weights[0])
                    continue
                flat = grads.flatten(0, 1)
                grad_weights[number].addmm_(flat.t(), handed[number - 1][start:stop].flatten(0, 1))
                below = grad_handed[number - 1]
                below[steps].copy_(below[0])
                torch.mm(flat, weights[2 * number], out=below[:steps].flatten(0, 1))
        grad_weights[0].addmm_(summed[0].t(), images, alpha=0.5)
        by_parameter: list[Tensor | None] = []
        for grad_weight, over_time in zip(grad_weights, summed):
            by_parameter += [grad_weight, over_time.sum(dim=0)]
        return None, None, None, *by_parameter


def can_read_out(images: Tensor, layers: Sequence[Any]) -> bool:
    """Whether `read_out` does what is asked of plain layers; else the plain way does, or says what is wrong."""
    if any(_is_watched(layer, layer.linear) for layer in layers):
        return False
    weights = _weights(layers)
    return (
        images.dtype in (torch.float32, torch.float64)
        and all(weight.dtype == images.dtype and weight.device == images.device for weight in weights)
        and images.shape[1:] == weights[0].shape[1:]
        and len(images) > 0
        and not (images.requires_grad and torch.is_grad_enabled())
        and not torch.compiler.is_compiling()
        and all(can_scan(images, layer.neuron) for layer in layers)
    )


GLOBAL_HOOKS = ("forward", "forward_pre", "backward", "backward_pre")


def _weights(layers: Sequence[Any]) -> list[Tensor]:
    """Weight and bias of each layer, one layer after another."""
    return [part for layer in layers for part in weight_and_bias(layer.linear) or ()]


def _is_watched(layer: nn.Module, linear: nn.Module) -> bool:
    """Whether someone has hooked in to see what the layer is given and hands out, or has replaced a part of it."""
    return (
        weight_and_bias(linear) is None
        # One by one: the function that asks all of them came after torch 2.6.
        or any(len(getattr(torch.nn.modules.module, f"_global_{kind}_hooks")) for kind in GLOBAL_HOOKS)
        or any(
            part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks
            for part in (layer, linear)
        )
    )


def read_out(
    net: nn.Module,
    images: Tensor,
    n_steps: int,
    begin_eval: int,
    generator: torch.Generator | None,
    shared: bool = False,
    mixed: bool = False,
) -> Tensor:
    """The last layer's state, averaged over the steps from `begin_eval` on, `[B, N]`.

    Parameters
    ----------
    net : whose `layers` are plain; its memory is used again, and goes when it goes.
    images : `[B, n]`, at least one, float32 or float64; no gradient goes to them.
    n_steps, begin_eval, generator, shared, mixed : as in `SpikingNet`.
    """
    layers: list[Any] = list(net.layers)  # type: ignore[arg-type]
    neurons = [layer.neuron for layer in layers]
    plan = Plan(n_steps, begin_eval, neurons, generator, shared, mixed, _spare.setdefault(net, {}))
    images, weights = images.contiguous(), _weights(layers)
    with full_precision(images.device):
        if not (torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)):
            with torch.no_grad():
                return _run(images, weights, plan, keep=False)[0]
        lent: set[int] = set()

        def pack(tensor: Tensor) -> tuple[Any, int]:
            return (_Loan(tensor, plan.spare) if lent and tensor.data_ptr() in lent else tensor), tensor._version

        def unpack(packed: tuple[Any, int]) -> Tensor:
            tensor: Tensor = packed[0].tensor if isinstance(packed[0], _Loan) else packed[0]
            if tensor._version != packed[1]:
                raise RuntimeError("images or weights were changed in place between the forward and the backward pass")
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            mean: Tensor = ReadOut.apply(plan, lent, images, *weights)
        return mean

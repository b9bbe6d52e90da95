"""How neurons run over time, fast; the reasons and the backward pass are derived in `performance`.

Nothing here adds to the model: chapter 01's loop says what a layer does, chapter 02's what the
flicker is. This module does the same with memory that is reused, in pieces that fit the
processor's cache, and with gradients written out by hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

LEVELS = 2**16  # of the flicker: a draw is a multiple of 1 / LEVELS
CACHED_VALUES = 2**20  # numbers worked on at a time: 4 MB of them stay in the cache

# `threshold_backward(a, b, 0)` is a where b > 0, else 0: the gate of a spike, in one pass.
_where_fired = torch.ops.aten.threshold_backward.grad_input


class Neuron(NamedTuple):
    """The settings of a layer's neurons, as in `neuron_step`."""

    decay: float
    threshold: float
    penalty: float
    reset: str

    @property
    def taken(self) -> float:
        """The share of the charge's gradient that a spike takes away: `1 - dv'/dv`."""
        return {"scale": self.penalty / self.threshold, "discharge": 1.0, "subtract": 0.0, "zero": 1.0}[self.reset]


class Scratch:
    """Working memory of one step of a layer: two blocks, used over and over."""

    def __init__(self, like: Tensor) -> None:
        self.first, self.second = torch.empty_like(like), torch.empty_like(like)


def advance(current: Tensor, state: Tensor, new_state: Tensor, output: Tensor, neuron: Neuron, work: Scratch) -> None:
    """`neuron_step`, written into `new_state` (which may be `state`) and `output`."""
    charge = torch.add(current, state, alpha=neuron.decay, out=work.first)
    torch.sub(charge, neuron.threshold, out=output).clamp_(min=0)
    if neuron.reset in ("scale", "zero"):
        fired = _where_fired(charge, output, 0, grad_input=work.second)
        torch.add(charge, fired, alpha=-neuron.taken, out=new_state)
    elif neuron.reset == "discharge":
        left = torch.full((), neuron.threshold - neuron.penalty, dtype=charge.dtype, device=charge.device)
        torch.where(output > 0, left, charge, out=new_state)
    else:
        torch.where(output > 0, output, charge, out=new_state)


def retreat(
    grad_current: Tensor,
    later: Tensor,
    grad_state: Tensor | None,
    grad_output: Tensor | None,
    output: Tensor,
    neuron: Neuron,
    work: Scratch,
) -> None:
    """One step of the backward pass, written into `grad_current`, which may be `later`.

    `later` is the gradient by the next step's current; `grad_state` and `grad_output` are what the
    rest of the world sends back to this step's state and output.
    """
    if grad_state is None:
        by_state = torch.mul(later, neuron.decay, out=work.first)
    else:
        by_state = torch.add(grad_state, later, alpha=neuron.decay, out=work.first)
    if grad_output is None:
        at_spike = torch.mul(by_state, -neuron.taken, out=work.second)
    else:
        at_spike = torch.add(grad_output, by_state, alpha=-neuron.taken, out=work.second)
    _where_fired(at_spike, output, 0, grad_input=at_spike)
    torch.add(by_state, at_spike, out=grad_current)


def _refuse_second_derivatives() -> None:
    # torch's own `once_differentiable` gives a part of them as if it were the whole.
    if torch.is_grad_enabled():
        raise RuntimeError(
            "spiking layers have first derivatives only: leave out create_graph=True, or build the layer step by"
            " step from neuron_step, which can be differentiated again"
        )


class Scan(Function):
    """Currents `[T, B, N]` to states and outputs, both delayed by one step, as `SpikingLayer` hands them out."""

    @staticmethod
    def forward(currents: Tensor, neuron: Neuron) -> tuple[Tensor, Tensor]:
        states, outputs = (torch.empty_like(currents, memory_format=torch.contiguous_format) for _ in range(2))
        states[0].zero_()
        outputs[0].zero_()
        work = Scratch(states[0])
        now, kept, handed = currents.unbind(), states.unbind(), outputs.unbind()
        for t in range(len(now) - 1):
            advance(now[t], kept[t], kept[t + 1], handed[t + 1], neuron, work)
        return states, outputs

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.neuron = inputs[1]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, grad_states: Tensor | None, grad_outputs: Tensor | None) -> tuple[Tensor | None, None]:
        _refuse_second_derivatives()
        if grad_states is None and grad_outputs is None:
            return None, None
        (outputs,) = ctx.saved_tensors
        grad_currents = torch.empty_like(outputs)
        grad_currents[-1].zero_()  # the last input is not seen
        work = Scratch(grad_currents[0])
        grads, handed = grad_currents.unbind(), outputs.unbind()
        by_state = [None] * len(grads) if grad_states is None else grad_states.unbind()
        by_output = [None] * len(grads) if grad_outputs is None else grad_outputs.unbind()
        for t in reversed(range(len(grads) - 1)):
            retreat(grads[t], grads[t + 1], by_state[t + 1], by_output[t + 1], handed[t + 1], ctx.neuron, work)
        return grad_currents, None


# --- Random numbers -------------------------------------------------------------------------------


def steps_at_once(n_values: int, device: torch.device) -> int:
    """How many steps of `n_values` numbers each to work on at a time; on a GPU all, to start few kernels."""
    return max(1, CACHED_VALUES // n_values) if device.type == "cpu" else 2**31


def words_for(n_values: int) -> int:
    """Draws of 64 bits for one step of `n_values`; steps never share a draw, so that they can be drawn one by one."""
    return math.ceil(n_values / 4)


def draw_words(words: Tensor, generator: torch.Generator | None) -> Tensor:
    """Fill `words` `[steps, words_for(n)]` int64; as int16, each piece is uniform in -32,768 to 32,767."""
    # "From the smallest number on": without it, random_ leaves the sign bit at 0.
    if generator is None or generator.device.type == words.device.type:
        return words.random_(-(2**63), None, generator=generator)
    drawn = torch.empty(words.shape, dtype=torch.int64, device=generator.device)
    return words.copy_(drawn.random_(-(2**63), None, generator=generator))


def uniform_masks(
    n_steps: int, shape: Sequence[int], dtype: torch.dtype, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """`[n_steps, *shape]` uniform in [0, 1), multiples of 2^-16, or as fine as a shorter dtype allows."""
    masks = torch.empty(n_steps, *shape, dtype=dtype, device=device)
    n_values = math.prod(shape)
    if n_values == 0:
        return masks
    digits = min(16, 1 - round(math.log2(torch.finfo(dtype).eps)))
    at_once = min(n_steps, steps_at_once(n_values, device))
    words = torch.empty(at_once, words_for(n_values), dtype=torch.int64, device=device)
    for part in masks.view(n_steps, n_values).split(at_once):
        pieces = draw_words(words[: len(part)], generator).view(torch.int16)[:, :n_values]
        if digits < 16:  # as coarse as the dtype, so that rounding never makes a 1
            pieces = pieces >> (16 - digits)
        part.copy_(pieces).add_(2 ** (digits - 1)).mul_(2.0**-digits)
    return masks


# --- Memory that is used again ----------------------------------------------------------------------

_spare: dict[tuple[Any, ...], Tensor] = {}


def _borrow(shape: Sequence[int], dtype: torch.dtype, like: Tensor) -> Tensor:
    """Uninitialised memory; on a CPU what an earlier batch gave back, since fresh pages cost more than sums."""
    if like.device.type == "cpu" and type(like) is Tensor:
        spare = _spare.pop((tuple(shape), dtype), None)
        if spare is not None:
            return spare
    return torch.empty(*shape, dtype=dtype, device=like.device)


class _Loan:
    """Holds borrowed memory for as long as autograd holds this, then gives it back."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __del__(self, spare: dict[tuple[Any, ...], Tensor] = _spare) -> None:
        if type(self.tensor) is Tensor and self.tensor.device.type == "cpu":
            spare[tuple(self.tensor.shape), self.tensor.dtype] = self.tensor
            while len(spare) > 4:
                spare.pop(next(iter(spare)), None)


# --- A whole network on a flickering image ----------------------------------------------------------


class Plan(NamedTuple):
    """What the weights do not say: see `SpikingNet`."""

    n_steps: int
    begin_eval: int
    neurons: Sequence[Neuron]
    generator: torch.Generator | None
    shared: bool
    mixed: bool


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
        self.words = _borrow(shape, torch.int64, images) if words is None else words
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
        """Draw the frames of these steps; write the currents that they cause, plus `base`, into `out` `[steps, B, N]`."""
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
        _borrow((n_steps, n_batch, len(bias)), images.dtype, images)
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
                advance(current, state, state, given[first + t + 1], neuron, works[number])
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
        lent.update(block.data_ptr() for block in (words, *handed) if block.device.type == "cpu")
        ctx.plan = plan
        ctx.save_for_backward(images, words, *handed, *weights)
        return mean

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivatives()
        plan: Plan = ctx.plan
        n_steps, last = plan.n_steps, len(plan.neurons) - 1
        images, words, *rest = ctx.saved_tensors
        handed, weights = rest[: last + 1], rest[last + 1 :]
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
                    retreat(
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


def read_out(images: Tensor, weights: Sequence[Tensor], plan: Plan) -> Tensor:
    """The last layer's state, averaged over the steps from `begin_eval` on, `[B, N]`.

    Parameters
    ----------
    images : `[B, n]`, contiguous, at least one, float32 or float64; no gradient goes to them.
    weights : weight and bias of each layer in turn, of the images' dtype and device.
    plan : the rest.
    """
    if not (torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)):
        with torch.no_grad():
            return _run(images, weights, plan, keep=False)[0]
    lent: set[int] = set()

    def pack(tensor: Tensor) -> tuple[Any, int]:
        return (_Loan(tensor) if tensor.data_ptr() in lent else tensor), tensor._version

    def unpack(packed: tuple[Any, int]) -> Tensor:
        tensor: Tensor = packed[0].tensor if isinstance(packed[0], _Loan) else packed[0]
        if tensor._version != packed[1]:
            raise RuntimeError("images or weights were changed in place between the forward and the backward pass")
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        mean: Tensor = ReadOut.apply(plan, lent, images, *weights)
    return mean

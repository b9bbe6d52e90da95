"""A layer over time, with its backward pass written out by hand; the reasons are derived in `performance`.

Chapter 01's loop, in `SpikingLayer.run`, says what comes out. This does the same in memory that is used over and
over.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from ..neurons import Neuron

# `threshold_backward(a, b, 0)` is a where b > 0, else 0: the gate of a spike, in one pass.
_where_fired = torch.ops.aten.threshold_backward.grad_input


class Scratch:
    """Working memory of one step of a layer: two blocks, used over and over."""

    def __init__(self, like: Tensor) -> None:
        self.first, self.second = torch.empty_like(like), torch.empty_like(like)


def forward_step(
    current: Tensor, state: Tensor, new_state: Tensor, output: Tensor, neuron: Neuron, work: Scratch
) -> None:
    """`neuron_step`, written into `new_state` (which may be `state`) and `output`."""
    charge = torch.add(current, state, alpha=neuron.decay, out=work.first)
    torch.sub(charge, neuron.threshold, out=output).clamp_(min=0)
    if neuron.reset in ("scale", "zero"):
        fired = _where_fired(charge, output, 0, grad_input=work.second)
        torch.add(charge, fired, alpha=-_taken(neuron), out=new_state)
    elif neuron.reset == "discharge":
        left = torch.full((), neuron.threshold - neuron.penalty, dtype=charge.dtype, device=charge.device)
        torch.where(output > 0, left, charge, out=new_state)
    else:
        torch.where(output > 0, output, charge, out=new_state)


def backward_step(
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
        at_spike = torch.mul(by_state, -_taken(neuron), out=work.second)
    else:
        at_spike = torch.add(grad_output, by_state, alpha=-_taken(neuron), out=work.second)
    _where_fired(at_spike, output, 0, grad_input=at_spike)
    torch.add(by_state, at_spike, out=grad_current)


def refuse_second_derivatives() -> None:
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
            forward_step(now[t], kept[t], kept[t + 1], handed[t + 1], neuron, work)
        return states, outputs

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.neuron = inputs[1]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, grad_states: Tensor | None, grad_outputs: Tensor | None) -> tuple[Tensor | None, None]:
        refuse_second_derivatives()
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
            backward_step(grads[t], grads[t + 1], by_state[t + 1], by_output[t + 1], handed[t + 1], ctx.neuron, work)
        return grad_currents, None


def _taken(neuron: Neuron) -> float:
    return float(neuron.taken_at_spike)


def can_scan(currents: Tensor, neuron: Neuron) -> bool:
    """Whether `scan` does what is asked; else the plain loop does, or says what is wrong."""
    if any(isinstance(value, Tensor) for value in (neuron.decay, neuron.threshold, neuron.penalty)):
        return False  # somebody may want their gradients
    return currents.is_floating_point() and not transformed()


def transformed() -> bool:
    """Whether torch.func or forward-mode differentiation is at work, which need operations that they know."""
    return bool(torch._C._are_functorch_transforms_active()) or forward_ad._current_level >= 0


def scan(currents: Tensor, neuron: Neuron) -> tuple[Tensor, Tensor]:
    """Currents `[T, B, N]` to states and outputs of the same shape, both delayed by one step."""
    states, outputs = Scan.apply(currents, neuron)
    return states, outputs

"""The checks of chapter 9's exercises."""

from __future__ import annotations

from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_chapters.after_spike import after_spike, pseudo_window
from snn_helpers.long.exercise import Check, NotYet, Undone, ask, function, near, number, tensor
from snn_helpers.plasticity import spike_trace

check = Check()


def _known(found: float, mistakes: dict[str, float], within: float) -> None:
    """Raise `NotYet` with the words of the first mistake that makes this number."""
    for words, value in mistakes.items():
        if abs(found - value) < within:
            raise NotYet(words)


@check.exercise(1)
def by_hand(answer: Any) -> str:
    """One coincidence: signal 0.2, a leak and a reset of slope -0.5 between, input -0.3."""
    found = number("by_hand", answer)
    if abs(found + 0.027) <= 5e-4:
        return (
            "Three factors below zero: with two of them, at the same times, the synapse would have been strengthened."
        )
    _known(
        found,
        {
            "the size is right, the sign is not: count the minus signs again, with that of descent": 0.027,
            "the learning signal and the path are there, the input is not": 0.09,
            "signal and path are there, and one of the signs; where is the input?": -0.09,
        },
        5e-4,
    )
    _known(
        abs(found),
        {
            "the first spike lies on the path: its reset multiplies as well": 0.2 * 0.9 * 0.3,
            "from one step to the next the state leaks, too": 0.2 * 0.5 * 0.3,
            "it leaks once too often: one step lies between the input and the second spike": 0.2 * 0.81 * 0.5 * 0.3,
            "where is the path, leak and reset, between the input and the second spike?": 0.2 * 0.3,
            "the learning signal is one of the three factors": 0.9 * 0.5 * 0.3,
            "one reset lies on the path: that of the second spike comes after it": 0.2 * 0.9 * 0.25 * 0.3,
            "three factors are multiplied, not added": abs(0.2 - 0.45 - 0.3),
        },
        5e-4,
    )
    raise NotYet(
        f"{found:g} is not the product of three factors: minus the signal, the path (leak and reset), the input"
    )


@check.exercise(2)
def unpaired_change(answer: Any) -> str:
    """The change of a negative weight that only weight decay moves, in ten steps."""
    found = number("unpaired_change", answer)
    left = -0.5 * (1 - 0.1 * 0.2) ** 10
    right = left + 0.5
    if abs(found - right) <= 2e-3:
        return "A negative weight comes up: weight decay knows the weight, and no spike. So it is no depression."
    _known(
        found,
        {
            "that is one step too few": 0.5 - 0.5 * 0.98**9,
            "that is one step too many": 0.5 - 0.5 * 0.98**11,
        },
        3e-4,
    )
    _known(
        found,
        {
            "the size is right; towards what does weight decay pull a weight that is below zero?": -right,
            "that is the weight that is left; by how much has it changed?": left,
            "that is the size of the weight that is left; by how much has it changed?": -left,
            "the input is paired with nothing, and yet its weight decays": 0.0,
            "each time it is a share of what is left, not of the first weight": 0.1,
            "each time it is a share of what is left, not of the first weight; and mind the sign": -0.1,
            "that is one time; there are ten": 0.01,
            "the step is the learning rate times the decay; the learning rate is missing": 0.5 - 0.5 * 0.8**10,
            "the step is the learning rate times the decay; the decay is missing": 0.5 - 0.5 * 0.9**10,
            "that is a share of the weight; by how much has the weight itself changed?": 1 - 0.98**10,
        },
        1.5e-3,
    )
    if 9 <= abs(found) <= 100:
        raise NotYet("that looks like per cent of the weight; by how much has the weight itself changed?")
    raise NotYet("what is left of a weight after one such step? And of that, after the next?")


@check.exercise(3)
def share_left(answer: Any) -> str:
    """Which share of the potentiation an after-spike leaves, in a steady current."""
    found = number("share_left", answer)
    if abs(found - 0.4) <= 2e-3:
        return "With a strength of 0.5 nothing would be left: then the integral is zero."
    _known(
        found,
        {
            "that is the share that the after-spike takes back; what is left?": 0.6,
            "the after-spike goes on: its steps add up, 1 + γ + γ² and so on": 1 - 0.3 * 0.5,
            "the after-spike is provoked by the current: how large is that?": 1 - 0.3 / 0.25,
            "the first step after the spike has the trace whole: the sum begins with 1": 1 - 0.3 * 0.5 * 0.75 / 0.25,
            "the sum of 1, γ, γ² and so on is not 1 / γ": 1 - 0.3 * 0.5 / 0.75,
            "the strength is one of the three that decide": 1 - 0.5 / 0.25,
            "a share is wanted, between 0 and 1, not per cent": 40.0,
            "the integral is not zero at this strength: work out the sum of the after-spike": 0.0,
        },
        2e-3,
    )
    raise NotYet("take the bracket of the formula for early input, and sum the geometric series")


@check.exercise(4)
def late_change(answer: Any) -> str:
    """What descent does to the weight of a late input, by the after-spike of its own step, against autograd."""
    generator = torch.Generator().manual_seed(94)
    for strength in (0.4, 1.7):
        handed, current, x = torch.randn(3, 40, generator=generator, dtype=torch.float64)
        outputs = torch.relu(torch.randn(40, generator=generator, dtype=torch.float64))
        trace = 2 * torch.rand(40, generator=generator, dtype=torch.float64)
        weight = torch.zeros(40, dtype=torch.float64, requires_grad=True)
        signal = outputs - strength * trace * torch.relu(current + weight * x)
        (gradient,) = torch.autograd.grad((handed * signal).sum(), weight)
        yours = tensor("late_change(...)", ask("late_change", answer, handed, strength, trace, current, x), [40])
        right, gate = -gradient, (current > 0).double()
        whole = strength * trace * handed * x
        if near(yours, right):
            continue
        mistakes = {
            "that is the gradient; descent goes the other way": gradient,
            "where the late current is below zero no after-spike is provoked: nothing can change there": whole,
            "where the late current is below zero no after-spike is provoked, and descent goes against the gradient": (
                -whole
            ),
            "the derivative of max(0, I) by I is 1 or 0, not I": right * current,
            "an input works through its weight: the change grows with the input": right / x,
            "the strength of the after-spike is missing": right / strength,
            "the trace of earlier spikes is missing: without a spike there is no after-spike": (
                strength * handed * gate * x
            ),
            "the learning signal is missing: whether less output is good is up to `handed`": strength
            * trace
            * gate
            * x,
            "yours weakens whatever the signal says; the gradient asks `handed`": -strength * trace * gate * x,
            "the size of `handed` counts, not the sign alone": strength * trace * handed.sign() * gate * x,
        }
        for words, value in mistakes.items():
            if near(yours, value):
                raise NotYet(words)
        raise NotYet(
            "autograd finds another change: go backwards from what is handed out, through minus the after-spike, to the"
            " current, and to the weight"
        )
    return (
        "All factors but one have a fixed sign for an input above zero: the sign of the late half is that of `handed`."
    )


@check.exercise(5)
def silent_step(answer: Any) -> str:
    """What one silent step adds to the change of a weight, two steps after its pulse."""
    found = number("silent_step", answer)
    if abs(found + 0.324) <= 4.5e-3:
        return "Nothing has fired, and the weight falls: the loss asks for silence, and that pays for depression."
    _known(
        found,
        {
            "the size is right; a silent step asks for less, not for more": 0.324,
            "in two steps the charge leaks: what is left of the pulse?": -0.4,
            "the pulse came two steps before, not one": -0.36,
            "the pulse came two steps before, not three": -0.4 * 0.729,
            "the temperature is missing": -0.1 * 0.81,
            "divide by the temperature, do not multiply": -0.1 * 0.25 * 0.81,
            "that would be a step with a spike; here z is 0": 0.9 / 0.25 * 0.81,
            "the share that is silent is not what counts: it is what was done less what was likely": -0.9 / 0.25 * 0.81,
            "silence was asked for in this step, and a spike was possible: so it adds something": 0.0,
        },
        1.5e-3,
    )
    raise NotYet("one step of the sum: what was done less what was likely, over T, times what is left of the pulse")


@check.exercise(6)
def short_strength(answer: Any, *, m: int, height: float, after_decay: float) -> str:
    """The strength that balances an after-spike which a current of m steps provokes."""
    found = number("short_strength", answer)
    current = torch.zeros(m + 20, dtype=torch.float64)
    current[6 : 6 + m] = height  # the spike is at step 5
    spike = torch.zeros_like(current)
    spike[5] = 1.0
    rest = after_spike(spike, current, after_decay, found).sum().item()
    if abs(rest) <= 6e-3:
        return "The shorter the late current, the stronger the after-spike has to be."
    if m < 2 or height <= 0:
        raise NotYet(
            f"the sum should be 0, but is {rest:+.4f}; and with {m} steps of the height {height:g} there is little to"
            " see: put m and height back to what the task has"
        )
    terms = [after_decay**k for k in range(m + 1)]
    _known(
        found,
        {
            "this is the strength for a current that never ends": (1 - after_decay) / height,
            "the height of the current is missing": 1 / sum(terms[:m]),
            "the first step after the spike has the trace whole: the sum begins with 1, not with γ": (
                1 / (height * sum(terms[1:]))
            ),
            "one term too many: the current lasts for m steps": 1 / (height * sum(terms)),
            "one term too few: the current lasts for m steps": 1 / (height * sum(terms[: m - 1])),
            "a weaker trace needs a stronger after-spike: that is the sum, not one over it": height * sum(terms[:m]),
        },
        1e-4,
    )
    if found <= 0:
        raise NotYet("a strength is above zero; the minus is in the formula of the after-spike already")
    raise NotYet(f"the sum should be 0, but is {rest:+.4f}: the strength is too {'small' if rest > 0 else 'large'}")


@check.exercise(7)
def balancing_slope(answer: Any) -> str:
    """The negative slope that takes back all potentiation, against the window that autograd draws."""
    for decay, threshold, penalty, n_refractory in ((0.9, 1.0, 0.4, 5), (0.8, 2.0, 0.5, 3), (0.95, 1.0, 0.0, 7)):
        rho = 1 - penalty / threshold
        told = ask("balancing_slope", answer, decay, rho, n_refractory)
        found = number("balancing_slope(...)", told, 0, what="a slope that is taken off")
        (left,) = pseudo_window(
            [0], found, n_refractory, decay=decay, threshold=threshold, penalty=penalty, reset="scale"
        ).tolist()
        if abs(left) <= 2e-3:
            continue
        powers = [decay**k for k in range(n_refractory + 2)]
        _known(
            found,
            {
                "the first refractory step comes one step after the spike: it has leaked once": (
                    1 / (rho * sum(powers[:n_refractory]))
                ),
                "the step of the spike itself is not refractory": 1 / (rho * sum(powers[: n_refractory + 1])),
                "the reset is missing: what the spike leaves in the state goes through its slope": (
                    1 / sum(powers[1 : n_refractory + 1])
                ),
                "one refractory step too many": 1 / (rho * sum(powers[1:])),
                "one refractory step too few": 1 / (rho * sum(powers[1:n_refractory])),
                "the refractory time ends: the sum has no infinitely many terms": (1 - decay) / (rho * decay),
                "that is what a slope of 1 would take back; which slope takes back 1?": (
                    rho * sum(powers[1 : n_refractory + 1])
                ),
                "the slope of the reset divides, too": rho / sum(powers[1 : n_refractory + 1]),
            },
            1e-6,
        )
        raise NotYet(
            f"with a decay of {decay}, a reset of the slope {rho:g} and {n_refractory} refractory steps, your slope"
            f" leaves {left:+.3f} of the potentiation: it is too {'small' if left > 0 else 'large'}"
        )
    for rho in (-0.5, 0.0):
        told = _of_no_slope(answer, rho)
        if not isinstance(told, str) and bool(np.isinf(np.asarray(told, dtype=float)).any()):
            raise NotYet(_BY_ZERO)
        if number("balancing_slope(...)", told) != 0:
            raise NotYet(
                f"through a reset of the slope {rho:g}, that of the article's code or text, no slope above zero takes"
                " potentiation back: then the answer is to be 0"
            )
    return "With the article's resets there is no such slope: there the negative derivative costs no potentiation."


_BY_ZERO = (
    "with a reset of the slope 0 your function divides by zero: then no slope takes potentiation back, and the answer"
    " is to be 0"
)


def _of_no_slope(answer: Any, rho: float) -> Any:
    try:
        return ask("balancing_slope", answer, 0.9, rho, 5)
    except Undone:
        raise NotYet(
            f"with a reset of the slope {rho:g} your function returns None: where there is no such slope, the answer is"
            " to be 0"
        ) from None
    except NotYet as error:
        if "ZeroDivisionError" in str(error):
            raise NotYet(_BY_ZERO) from None
        raise


@check.exercise(8)
def late_price(answer: Any, *, after_decay: float) -> str:
    """A second loss that late current pays, and that neither spikes nor trace feel."""
    if _writes_out(answer, after_decay, "after_decay"):
        raise NotYet(
            "the decay of the trace is written as a number in it; take `after_decay`, so that the price follows the"
            " parameters"
        )
    generator = torch.Generator().manual_seed(98)
    for n_steps, n_examples, n in ((12, 4, 3), (9, 2, 5)):
        outputs = torch.relu(torch.randn(n_steps, n_examples, n, generator=generator, dtype=torch.float64) - 0.3)
        currents = torch.randn(n_steps, n_examples, n, generator=generator, dtype=torch.float64)
        told = ask("late_price", answer, outputs, currents)
        if isinstance(told, Tensor) and told.dim() > 0 and told.numel() > 1:
            raise NotYet(f"a loss is one number; yours has the shape {list(told.shape)}")
        yours = number("late_price(...)", told)
        trace = spike_trace(outputs, after_decay)
        before = torch.cat([torch.zeros_like(trace[:1]), trace[:-1]])
        pays = before * currents.relu()
        _of_price(yours, pays, (trace * currents.relu()).sum().item(), (before * currents).sum().item(), after_decay)
        _of_its_gradient(answer, outputs, currents, before * (currents > 0) / n_examples)
    return (
        "Late input is weakened whatever the learning signal says, since a second loss asks for it, and not the first."
    )


def _writes_out(answer: Any, value: float, name: str) -> bool:
    """Whether a function holds the number itself, and does not look up the name that it has in the notebook."""
    codes = [code for code in [getattr(answer, "__code__", None)] if isinstance(code, CodeType)]
    constants, names = list(getattr(answer, "__defaults__", None) or ()), set()
    for code in codes:
        codes += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
        constants += code.co_consts
        names |= {*code.co_names, *code.co_freevars}
    return name not in names and any(isinstance(one, float) and one == value for one in constants)


def _of_price(yours: float, pays: Tensor, own_step: float, open_gate: float, after_decay: float) -> None:
    n_steps, n_examples, n = pays.shape
    total = pays.sum().item()
    if abs(yours - total / n_examples) <= 1e-4 * total:
        return
    mistakes = {
        "the size is right, the sign is not: a price is above zero": -total / n_examples,
        "it is a sum over the examples; their mean is wanted": total,
        "it is a mean over everything; steps and neurons are to be summed": total / (n_steps * n_examples * n),
        "steps are to be summed, and only the examples averaged": total / (n_steps * n_examples),
        "neurons are to be summed, and only the examples averaged": total / (n * n_examples),
        "the trace has the spike of the same step in it; a spike's own step comes too early": own_step / n_examples,
        "the trace leaks once too often: in the step after a spike it has the whole of it": (
            after_decay * total / n_examples
        ),
        "a current below zero does not pay: max(0, I)": open_gate / n_examples,
    }
    _known(yours, mistakes, 1e-4 * abs(total) / (n_steps * n_examples * n))
    raise NotYet(
        "that is not the price: it is the mean over examples of the sum over steps and neurons of the trace times"
        f" max(0, I), with the notebook's decay of the trace, {after_decay:g}"
    )


def _of_its_gradient(answer: Any, outputs: Tensor, currents: Tensor, right: Tensor) -> None:
    leaves = outputs.clone().requires_grad_(), currents.clone().requires_grad_()
    try:
        price = function("late_price", answer)(*leaves)
    except Exception as error:
        raise NotYet(
            "the price is right, but autograd cannot follow it back to the currents: with currents that ask for a"
            f" gradient, late_price stops with an error ({type(error).__name__}). Work on tensors all the way"
        ) from error
    if not isinstance(price, Tensor) or not price.requires_grad:
        raise NotYet(
            "no gradient reaches the currents: the price should be a tensor that autograd can follow back to them"
        )
    by_output, by_current = torch.autograd.grad(price.sum(), leaves, allow_unused=True)
    if by_output is not None and bool(by_output.any()):
        raise NotYet("spikes feel its gradient: detach them before you take the trace")
    if by_current is None or not bool(by_current.any()):
        raise NotYet("the currents do not feel it; only spikes and trace are to be left alone")
    if not near(by_current, right):
        raise NotYet("the price is right, and its gradient is not: some late, positive inputs are not weakened by it")

"""The checks of chapter 10's exercises."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from snn_helpers import SpikingNet, flicker, neuron_step
from snn_helpers.long.exercise import Check, NotYet, ask, kind, near, number, tensor
from snn_helpers.plasticity import input_credit, reset_slope, spike_trace

check = Check()


@check.exercise(1)
def future(answer: Any) -> str:
    """The credit of each charge, against the sum over all later steps, at random settings."""
    generator = torch.Generator().manual_seed(10)
    for _ in range(3):
        decay, at_spike = 0.4 + 0.5 * torch.rand(2, generator=generator, dtype=torch.float64)
        direct = torch.randn(8, generator=generator, dtype=torch.float64)
        fired = torch.rand(8, generator=generator) < 0.4
        fired[2] = True
        slopes = torch.where(fired, -at_spike, torch.ones(8, dtype=torch.float64))
        given = ask("future", answer, direct, slopes, decay.item())
        found = tensor("future(...)", given, [8])
        right = _summed(direct, decay * slopes)
        if near(found, right):
            continue
        mistakes = {
            "the numbers are right, and in the wrong order: the first is that of the first step": right.flip(0),
            "you go forward in time: each step's number depends on the step *after* it": _summed(
                direct.flip(0), decay * slopes.flip(0)
            ).flip(0),
            "you go forward in time: each step's number depends on what comes *after* it": _summed(
                direct.flip(0), decay * slopes.flip(0).roll(-1)
            ).flip(0),
            "the leak is not in it: of a state only the share `decay` reaches the next step": _summed(direct, slopes),
            "resets are not in it: a spike multiplies what its state hands on by its slope": _summed(
                direct, decay.expand(8)
            ),
            "the slope is that of the step after: what a step hands on passes its *own* reset": _summed(
                direct, decay * slopes.roll(-1)
            ),
            "the slope multiplies the direct part too; that part does not wait for the reset": _summed(
                slopes * direct, decay * slopes
            ),
            "this multiplies the direct part by the slope; what do the later steps add to it?": slopes * direct,
            "this is only the next step's part; that step hands on as well, and so on": direct
            + decay * slopes * torch.cat([direct[1:], direct.new_zeros(1)]),
            "this is the direct part alone: what does the charge do to later steps?": direct,
            "the direct part of the step itself is missing": right - direct,
            "a slope keeps its sign: a reset may turn what is handed on round": _summed(direct, decay * slopes.abs()),
            "what the steps hand on is to be added": _summed(direct, -decay * slopes),
            "of a state the share `decay` stays, and 1 - decay is lost": _summed(direct, (1 - decay) * slopes),
            "the decay is handed over as `decay`: use that one, not the notebook's": _summed(direct, 0.9 * slopes),
        }
        for words, mistake in mistakes.items():
            if near(found, mistake):
                raise NotYet(words)
        if abs(found[-1] - right[-1]) > 1e-6:
            raise NotYet("nothing follows the last step: what is left for it is its direct part")
        raise NotYet("the last step is right, some step before it is not: go back from the end, one step at a time")
    return "This runs backwards, so a rule that runs forward cannot have it: it must guess it, drop it, or look twice."


def _summed(direct: Tensor, passed: Tensor) -> Tensor:
    """For each step, the direct parts of it and of all later ones, each times what the steps between pass on."""
    n = len(direct)
    found = [sum(direct[s] * passed[t:s].prod() for s in range(t, n)) for t in range(n)]
    return torch.stack([torch.as_tensor(value) for value in found])


RULES = ("RTRL", "OSTL", "OTPE", "e-prop", "OTTT", "SuperSpike", "DECOLLE", "EventProp")
ASKED = {
    "A": "does this rule's trace know when the neuron was reset, and does it look ahead?",
    "B": "what would a rule cost that keeps everything, while the network runs?",
    "C": "one rule of the table does not run forward",
    "D": "which rule needs no error from above?",
}


@check.exercise(2)
def whose(answer: Any) -> str:
    """Four rules by their names; a dictionary, or a list in the order of the letters."""
    if isinstance(answer, (list, tuple)) and len(answer) == len(ASKED):
        answer = dict(zip(ASKED, answer))
    if not isinstance(answer, dict):
        raise NotYet(f"whose should be a dictionary from letters to names of rules, and is {kind(answer)}")
    given = {str(letter).strip().upper(): name for letter, name in answer.items()}
    missing = [letter for letter in ASKED if letter not in given]
    if missing:
        raise NotYet(f"whose has no entry for {' and '.join(missing)}")
    known = {_plain(rule): rule for rule in RULES}
    right = dict(zip(ASKED, (RULES[i] for i in (4, 0, 7, 6))))
    for letter, hint in ASKED.items():
        if _plain(given[letter]) not in known:
            raise NotYet(f"{letter}: {given[letter]!r} is no rule of the table")
        if known[_plain(given[letter])] != right[letter]:
            raise NotYet(f"{letter} is not {known[_plain(given[letter])]}: {hint}")
    return "Each of them pays: in exactness, in computing, in direction, or with an error of its own."


def _plain(name: Any) -> str:
    """A rule's name without capitals, hyphens and what is in brackets."""
    return "".join(letter for letter in str(name).split("(")[0].lower() if letter.isalnum())


@check.exercise(3)
def hidden_step(answer: Any) -> str:
    """The hidden layer's step by two showings, against autograd's; small networks of both resets."""
    for seed, reset, rate in ((5, "scale", 0.15), (11, "discharge", 0.03)):
        generator = torch.Generator().manual_seed(seed)
        net = SpikingNet(9, 0, (12, 8, 4), 0.8, 0.3, 0.5, reset, generator).double()
        images = torch.rand(5, 12, generator=generator, dtype=torch.float64)
        labels = torch.tensor([0, 3, 1, 2, 3])
        given = ask("hidden_step", answer, net, images, labels, seed, rate)
        if isinstance(given, (tuple, list)):
            raise NotYet(f"hidden_step should return one tensor, the change of the weights, and returns {kind(given)}")
        found = tensor("hidden_step(...)", given)
        if tuple(found.shape) == (12, 8):
            raise NotYet("the step lies on its side: weights of nn.Linear have the neurons first, then the inputs")
        found = tensor("hidden_step(...)", given, [8, 12])
        frames, fresh, later = _flickers(images, seed)
        right = -rate * _two_showings(net, frames, frames, labels)
        if near(found, right):
            continue
        again = tensor("hidden_step(...)", ask("hidden_step", answer, net, images, labels, seed, rate), [8, 12])
        if not near(again, found):
            raise NotYet("asked twice with the same seed, it gives two different steps: where does the flicker begin?")
        mistakes = {
            "the sign: descent goes against the gradient": -right,
            "this is the gradient; the step is the rate's share of it, against it": right / -rate,
            "the sign is right, the rate is not in it": right / rate,
            "the showings flicker differently: the second begins where one generator was left by the first": -rate
            * _two_showings(net, frames, fresh, labels),
            "the showings flicker differently: their seeds are not the same": -rate
            * _two_showings(net, frames, later, labels),
            "the mean over the batch is taken twice: the error of the first showing has it already": right / 5,
            "these are the new weights; their change is asked for": right + net.state_dict()["layers.0.linear.weight"],
            "the rate is handed over as `rate`: use that one, not a number of your own": right * 0.1 / rate,
            "the mean over the batch is undone: the error of the first showing has it, and it should stay": right * 5,
        }
        for words, mistake in mistakes.items():
            if near(found, mistake):
                raise NotYet(words)
        raise NotYet(
            "this is not autograd's step. Are both showings of the same images, with the seed that is handed over, and"
            " does the second get the error and the spikes of the first?"
        )
    return "It is the step that autograd takes, and no graph through time was kept."


def _flickers(images: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """The frames that the seed draws, those that the same generator draws next, and those of the next seed."""
    generator, other = (torch.Generator().manual_seed(s) for s in (seed, seed + 1))
    first, second, third = (
        torch.cat([flicker(images, 1, which) for _ in range(9)]) for which in (generator, generator, other)
    )
    return first, second, third


@torch.no_grad()
def _two_showings(net: Any, first: Tensor, second: Tensor, labels: Tensor) -> Tensor:
    """The gradient of the hidden weights: error and spikes above by the first frames, all else by the second."""
    states, fired, _ = _shown(net, first)
    error = F.softmax(states[:-1].sum(dim=0) / net.n_steps, dim=-1) - F.one_hot(labels, 4)
    last, hidden = net.layers[1], net.layers[0]
    slopes = reset_slope(fired[:-1], last.threshold, last.penalty, last.reset)
    direct = slopes * (error / len(labels) / net.n_steps)
    credit = input_credit(direct, slopes, last.decay)
    _, _, outputs = _shown(net, second)
    signals = torch.zeros_like(outputs)
    signals[:-2] = (credit @ last.linear.weight)[1:]
    signals *= outputs > 0
    own = reset_slope((outputs > 0).double(), hidden.threshold, hidden.penalty, hidden.reset)
    return torch.einsum("tbj,tbi->ji", input_credit(signals, own, hidden.decay), second)


def _shown(net: Any, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The last layer's states and where it fired, and the hidden outputs; none of them delayed."""
    hidden, last = net.layers
    told = (hidden.decay, hidden.threshold, hidden.penalty, hidden.reset)
    state = output = frames.new_zeros(frames.shape[1], 8)
    top, found = frames.new_zeros(frames.shape[1], 4), []
    for frame in frames:
        spikes, top = neuron_step(last.linear(output), top, *told)
        output, state = neuron_step(hidden.linear(frame), state, *told)
        found.append((top, (spikes > 0).double(), output))
    states, fired, outputs = (torch.stack(parts) for parts in zip(*found))
    return states, fired, outputs


@check.exercise(4)
def seen_after(answer: Any) -> str:
    """After how many doublings a difference of single and of double precision is above a hundredth."""
    if not isinstance(answer, (tuple, list)) and not hasattr(answer, "shape"):
        raise NotYet(f"seen_after should be two numbers, as in (3, 4), and is {kind(answer)}")
    both = tensor("seen_after", answer, [2]).tolist()
    right = [math.ceil(math.log2(0.01 / start)) for start in (1e-7, 1e-16)]
    if both == right[::-1]:
        raise NotYet("single precision is asked for first: it is the one that shows sooner")
    for name, found, wanted, start in zip(("single", "double"), both, right, (1e-7, 1e-16)):
        found = number(name, found, 0, whole=found != round(found, 3))
        if found == wanted - 1:
            raise NotYet(f"{name}: after {found:.0f} updates the difference is {start * 2**found:.1e}, not above 0.01")
        if abs(found - math.log10(0.01 / start)) < 1.1:
            raise NotYet(
                f"{name}: those are decimal digits; an update doubles the difference, and does not take it times ten"
            )
        if abs(found - math.log(0.01 / start)) < 1.1:
            raise NotYet(f"{name}: that is the natural logarithm; an update doubles the difference")
        if abs(found - math.log2(1 / start)) < 1.1:
            raise NotYet(f"{name}: that is until the difference is 1; 0.01 is asked for")
        if found != round(found):
            raise NotYet(f"{name}: {found:g} is no whole number of updates; after how many is it above 0.01?")
        if found != wanted:
            if found > wanted:
                raise NotYet(f"{name}: it is larger than 0.01 before {found:.0f} updates are over")
            raise NotYet(f"{name}: after {found:.0f} updates the difference is only {start * 2**found:.0e}")
    return "Nine more digits put it off by thirty updates. They do not prevent it."


@check.exercise(5)
def break_even(answer: Any) -> str:
    """From how many steps on backpropagation keeps as many numbers as there are eligibilities."""
    found = number("break_even", answer, 0)
    kept, a_step = 785 * 100, 784 + 110
    if abs(found - kept / (784 + 100)) < 0.6 and found == 89:
        raise NotYet(
            "a step keeps the charges of both layers; in all, there are the hidden layer's eligibilities alone"
        )
    if found == round(found) and found * a_step < kept:
        raise NotYet(f"after {found:.0f} steps backpropagation keeps still fewer numbers than the forward way")
    if found != round(found):
        raise NotYet(f"break_even is {found:.9g}, and steps are whole: which is the first with as many or more?")
    if (found - 1) * a_step >= kept:
        raise NotYet("one step earlier it keeps as many already: look for the smallest")
    return "Compare it with where the curves cross: what each way holds for a moment only is not in this count."


@check.exercise(6)
def at_spikes(answer: Any) -> str:
    """Eligibilities at spikes, against the recursion over all steps; the trace is not there at other steps."""
    generator = torch.Generator().manual_seed(60)
    for fired, slope in (([4, 5, 11, 20], 1.0), ([4, 5, 11, 20], 0.0), ([0, 3, 4, 9, 29], -0.5), ([2, 13, 25], 0.3)):
        decay = 0.6 + 0.35 * torch.rand((), generator=generator).item()
        x = torch.rand(30, generator=generator, dtype=torch.float64)
        whole = spike_trace(x, decay)
        trace = torch.full_like(whole, math.inf)
        trace[fired] = whole[fired]
        given = ask("at_spikes", answer, trace, list(fired), slope, decay)
        if isinstance(given, Tensor) and given.dim() == 1 and len(given) == 30:
            raise NotYet("only the steps in `fired` are asked for: one eligibility for each spike")
        found = _of_spikes(given, len(fired))
        right = _eligibilities(x, fired, slope, decay)
        if near(found, right):
            continue
        told = f"with the slope {slope:g}"
        mistakes = {
            f"{told} this is the plain trace: what a spike takes from the eligibility is lacking later": whole[fired],
            "does what is lacking fade? It does so at each step between two spikes": _by_lacking(
                whole, fired, slope, decay, lambda gap: 0
            ),
            "what is lacking fades once a *step*, not once a spike": _by_lacking(
                whole, fired, slope, decay, lambda gap: 1
            ),
            "what is lacking fades in every step from one spike to the next: count them again": _by_lacking(
                whole, fired, slope, decay, lambda gap: gap - 1
            ),
            "each step fades by the `decay` that is handed over, not by the notebook's": _by_lacking(
                whole, fired, slope, 0.9, lambda gap: gap
            ),
            "the eligibility *lacks* it against the trace: take it away, do not add it": _by_lacking(
                whole, fired, slope, decay, lambda gap: gap, sign=-1.0
            ),
            "what is lacking fades once too often": _by_lacking(whole, fired, slope, decay, lambda gap: gap + 1),
            "a spike adds to what is lacking; what was lacking before does not go": _by_lacking(
                whole, fired, slope, decay, lambda gap: gap, keep=0.0
            ),
            "a spike takes away the share 1 - slope of the eligibility; yours takes the slope": _by_lacking(
                whole, fired, 1 - slope, decay, lambda gap: gap
            ),
            "a spike takes a share of the *eligibility*; yours takes it of the trace": _by_lacking(
                whole, fired, slope, decay, lambda gap: gap, of_trace=True
            ),
            "the spike's own reset is in it: it changes what comes after, not the eligibility at the spike": slope
            * right,
        }
        for words, mistake in mistakes.items():
            if near(found, mistake):
                raise NotYet(words)
        wrong = int((found - right).abs().gt(1e-5).nonzero()[0])
        raise NotYet(
            f"{told} and the decay {decay:.2f}, the eligibility at spike number {wrong + 1} is off, and those before it"
            " are right: how does what is lacking fade, and how much does each spike add to it?"
        )
    return "So the network touches a synapse only when its neuron fires, and that is seldom."


def _of_spikes(given: Any, n: int) -> Tensor:
    if not isinstance(given, (list, tuple)) and not len(getattr(given, "shape", ())):
        raise NotYet(f"at_spikes should return a list, one eligibility for each spike, and returns {kind(given)}")
    if len(given) != n:
        raise NotYet(f"there should be one eligibility for each spike, {n} here, and there are {len(given)}")
    if not all(hasattr(value, "__float__") for value in given):
        raise NotYet("at_spikes should return numbers, one eligibility for each spike")
    values = [float(value) for value in given]
    if not all(math.isfinite(value) for value in values):
        raise NotYet("it uses the trace at a step without a spike; there the check hands over no number")
    return tensor("at_spikes(...)", values, [n])


def _eligibilities(x: Tensor, fired: Sequence[int], slope: float, decay: float) -> Tensor:
    eligibility, found = 0.0, []
    for step, now in enumerate(x.tolist()):
        eligibility = now + decay * (slope if step - 1 in fired else 1.0) * eligibility
        if step in fired:
            found.append(eligibility)
    return torch.tensor(found, dtype=torch.float64)


def _by_lacking(
    trace: Tensor,
    fired: Sequence[int],
    slope: float,
    decay: float,
    steps: Callable[[int], int],
    keep: float = 1.0,
    of_trace: bool = False,
    sign: float = 1.0,
) -> Tensor:
    lacks, before, found = 0.0, 0, []
    for step in fired:
        lacks *= decay ** steps(step - before)
        full = trace[step].item()
        found.append(full - sign * lacks)
        lacks = keep * lacks + (1 - slope) * (full if of_trace else found[-1])
        before = step
    return torch.tensor(found, dtype=torch.float64)


@check.exercise(7)
def local_step(answer: Any, net: Any, factors: Any, decay: float) -> str:
    """The step of a rule without future and resets, weight by weight; any positive length will do."""
    hidden, last = factors
    found = tensor("local_step", answer)
    n_neurons, n_inputs = hidden.signals.shape[-1], hidden.inputs.shape[-1]
    if tuple(found.shape) == (n_inputs, n_neurons):
        raise NotYet(f"the step lies on its side: it should have the shape [{n_neurons}, {n_inputs}]")
    found = tensor("local_step", answer, [n_neurons, n_inputs])
    if not found.any():
        raise NotYet("the step is 0 everywhere: nothing would be learnt")
    inputs, slopes = hidden.inputs.detach().cpu().double(), hidden.slopes.detach().cpu().double()
    exact, fires = hidden.signals.detach().cpu().double(), (hidden.outputs > 0).cpu()
    sent = last.signals.detach().cpu().double() @ net.layers[1].linear.weight.detach().cpu().double()
    nothing = torch.zeros_like(sent[:1])
    after, before = torch.cat([sent[1:], nothing]), torch.cat([nothing, sent[:-1]])
    trace = spike_trace(inputs, decay)

    def step(signals: Tensor, eligibility: Tensor = trace) -> Tensor:
        return -torch.einsum("tbj,tbi->ji", signals, eligibility)

    right = step(after * fires)
    if _along(found, right):
        whole = -torch.einsum("tbj,tbi->ji", input_credit(exact, slopes, decay), inputs)
        cosine = F.cosine_similarity(right.flatten(), whole.flatten(), dim=0)
        return f"Nothing of the future is in it, and its cosine with the derivative's own step is {cosine:.2f} here."
    if _along(found, -right):
        raise NotYet("the sign is turned round: as it is, the step goes up the loss; is a minus lacking, or too many?")
    mistakes = {
        "is the error that of the step after the spike? Yours is that of the spike's own step": step(sent * fires),
        "is the error that of the step after the spike? Yours is that of the step before": step(before * fires),
        "a spike counts by whether it is there, not by its size": step(after * hidden.outputs.detach().cpu().double()),
        "the errors of the first step come round to the last one: nothing follows the last step": step(
            torch.cat([sent[1:], sent[:1]]) * fires
        ),
        "a hidden neuron that has not fired has sent nothing up: it gets no signal there": step(after),
        "the signal knows the future of the last layer: these are the exact learning signals": step(exact),
        "the future is gone, the resets are not: the eligibility should be the plain trace": -torch.einsum(
            "tbj,tbi->ji", input_credit(after * fires, slopes, decay), inputs
        ),
        "this is the derivative's own step, with future and resets": -torch.einsum(
            "tbj,tbi->ji", input_credit(exact, slopes, decay), inputs
        ),
        "the input of the spike's own step alone counts; the trace holds what came before it, too": step(
            after * fires, inputs
        ),
        "the errors do not count, only the spikes: which of them were good?": step(fires.double()),
    }
    for words, mistake in mistakes.items():
        if _along(found, mistake) or _along(found, -mistake):
            raise NotYet(words)
    raise NotYet(
        "this is another direction: is the error that of the step after the spike, only where the hidden neuron fired,"
        " and is the trace without resets?"
    )


def _along(one: Tensor, other: Tensor) -> bool:
    """Whether two steps are the same but for their length."""
    lengths = one.norm() * other.norm()
    if lengths == 0:
        return False
    return bool((one / one.norm() - other / other.norm()).norm() < 1e-3)

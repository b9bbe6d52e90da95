"""The checks of chapter 11's exercises."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from snn_helpers import SpikingNet
from snn_helpers.long.exercise import Check, NotYet, ask, function, kind, number, tensor
from snn_helpers.statistics import mean_and_interval

check = Check()


@check.exercise(1)
def woken_share(answer: Any) -> str:
    """The share of silent labels that training wakes, less what wakes without it."""
    if number("woken_share", answer) in (6, 14, 20, 26, 32, 34):
        raise NotYet("woken_share should be a share, and this looks like a number of labels: of how many is it?")
    found = number("woken_share", answer, 0, share=True)
    mistakes = {
        26
        / 40: "so many fire in the end, and some of them would have fired without training: what is the control for?",
        6 / 40: "that is the share of the control, of what wakes without training",
        14 / 40: "that is the share that stays silent",
        34 / 40: "that is the share that stays silent in the control",
        32 / 40: "the control's are added; they would have come back without training, so take them away",
        20 / 26: "that is a share of those that woke; the share of all that were silent is asked for",
        20 / 34: "the share of all that were silent at first is asked for, not of those that the control leaves silent",
        6 / 26: "that is what the control accounts for, of those that woke",
    }
    for value, words in mistakes.items():
        if abs(found - value) < 5e-3:
            raise NotYet(words)
    if abs(found - 20 / 40) > 5e-3:
        raise NotYet(f"{found:g} is not it: how many more wake with training than without, and of how many?")
    return "Without the control you would have taken the chance of the flicker for learning."


@check.exercise(2)
def who_learns(weights: Any, biases: Any) -> str:
    """Which layers of a network with a silent third layer get a gradient, against autograd in such a network."""
    by_weights, by_biases = _layers("weights_learn", weights), _layers("biases_learn", biases)
    true_weights, true_biases = _of_a_silent_third_layer()
    for n in sorted(by_weights - true_weights):
        raise NotYet(_why_no_gradient(n, "weights"))
    for n in sorted(by_biases - true_biases):
        raise NotYet(_why_no_gradient(n, "biases"))
    if true_weights - by_weights or true_biases - by_biases:
        raise NotYet("one more parameter moves the states that are read, whatever arrives from below: which?")
    return "A silent layer mutes the layer above it, too: all that can learn there learns without seeing an image."


def _layers(name: str, answer: Any) -> set[int]:
    """Numbers of layers, 1 to 4: one number, or a list, a tuple, a set, a tensor of them, which may be empty."""
    if isinstance(answer, dict) and not answer:
        return set()
    if hasattr(answer, "tolist"):
        answer = answer.tolist()
    if not isinstance(answer, (list, tuple, set, range, int, float)) or isinstance(answer, bool):
        raise NotYet(f"{name} should be a list of layers' numbers, as in [1, 2], and is {kind(answer)}")
    given = [answer] if isinstance(answer, (int, float)) else answer
    return {int(number(f"an entry of {name}", n, 1, 4, whole=True, what="a layer's number")) for n in given}


def _why_no_gradient(n: int, what: str) -> str:
    if n == 4:
        return "the gradient of a weight of layer 4 is multiplied by what layer 3 sends to it: what does it send?"
    if n == 3:
        return f"layer 3 fires for no image: which factor of the chain rule stands before the gradient of its {what}?"
    return f"what the loss has to say to the {what} of layer {n} has to cross layer 3: does it get through?"


def _of_a_silent_third_layer() -> tuple[set[int], set[int]]:
    """The layers whose weights, and whose biases, get a gradient where the first two fire and the third does not."""
    generator = torch.Generator().manual_seed(20)
    net = SpikingNet(12, 0, (8, 20, 20, 20, 4), 0.9, 0.2, 0.3, generator=generator)
    net.layers[2].threshold = 1e6  # type: ignore[assignment]
    images, labels = torch.rand(30, 8, generator=generator), torch.randint(4, (30,), generator=generator)
    F.nll_loss(net(images, torch.Generator().manual_seed(21)), labels).backward()
    moved: tuple[set[int], set[int]] = (set(), set())
    for n, layer in enumerate(net.layers, 1):
        linear: Any = layer.linear
        for found, part in zip(moved, (linear.weight, linear.bias)):
            if part.grad.abs().max() > 0:
                found.add(n)
    return moved


@check.exercise(3)
def one_answer_of_two(product: Any, mixture: Any) -> str:
    """What two members say together: as a product of softmaxes, and as a mixture."""
    names = ("product_says", "mixture_says")
    found = [number(name, value, 0, share=True) for name, value in zip(names, (product, mixture))]
    right = (0.8 * 0.1 / (0.8 * 0.1 + 0.2 * 0.9), (0.8 + 0.1) / 2)
    near = [[abs(value - wanted) < 6e-3 for wanted in right] for value in found]
    if near[0][1] and near[1][0]:
        raise NotYet("the two are in each other's place")
    if abs(found[0] - 0.08) < 1e-3:
        raise NotYet("product_says: the products of both labels do not add up to 1 yet; a probability must")
    if abs(found[0] - math.sqrt(0.08)) < 1e-3:
        raise NotYet("product_says: that is the geometric mean; no root is taken, and the labels must add up to 1")
    if abs(found[0] - 0.4) < 1e-3:
        raise NotYet("product_says: that is the geometric mean, made to add up to 1; in a product no root is taken")
    if abs(found[1] - 0.9) < 1e-3:
        raise NotYet("mixture_says: that is the sum of both members; a mixture is their average")
    for name, value, wanted in zip(names, found, right):
        if abs(value - (1 - wanted)) < 6e-3:
            raise NotYet(f"{name}: that is what they say to label b")
        if abs(value - wanted) >= 6e-3:
            what = (
                "multiply what both members give to each label; do a and b add up to 1 then"
                if name == names[0]
                else "does each count alike"
            )
            raise NotYet(f"{name}: {value:g} is not it, to two digits: {what}?")
    return "In a product one member can forbid a label. In a mixture the label keeps what the others give it."


@check.exercise(4)
def half_widths(answer: Any) -> str:
    """The half-width of an interval alone, and as one of five, over five seeds."""
    values = [0.9, 0.4, 0.7, 0.1, 0.6]
    if not isinstance(answer, (tuple, list)) and not hasattr(answer, "shape"):
        raise NotYet(f"half_widths should be two numbers, as in (1.0, 2.0), and is {kind(answer)}")
    if len(answer) == 2 and all(isinstance(part, (tuple, list)) and len(part) == 2 for part in answer):
        if all(abs(part[0] - sum(values) / 5) > 6e-3 for part in answer):
            raise NotYet("if these are the ends of the intervals: half of the way between them is asked for")
        raise NotYet("mean_and_interval gives the mean and the half-width; the half-width alone is asked for")
    alone, of_five = tensor("half_widths", answer, [2]).tolist()
    mean, right = mean_and_interval(values)
    wide = mean_and_interval(values, 5)[1]
    spread = torch.tensor(values, dtype=torch.float64).std().item()

    def is_(value: float, wanted: float) -> bool:
        return abs(value - wanted) < 6e-3

    if is_(alone, right) and is_(of_five, wide):
        return "Alone it is clear of 0, as one of five it is not: chance misleads five looks more often than one."
    if is_(alone, wide) and is_(of_five, right):
        raise NotYet("the two are in each other's place: which must be the wider one?")
    if is_(alone, mean) or is_(of_five, mean):
        raise NotYet("one of your numbers is the mean of the differences; the half-width is asked for")
    if is_(alone, spread):
        raise NotYet("the first is the standard deviation of one difference, and the interval is that of their mean")
    if is_(alone, 2 * right):
        raise NotYet("the first is the whole width of the interval; half of it is asked for")
    if is_(alone, 1.96 * spread / math.sqrt(5)):
        raise NotYet("with five seeds the factor is Student's, not 1.96: `mean_and_interval` knows it")
    if not is_(alone, right):
        raise NotYet(f"alone, the half-width is not {alone:g}; `mean_and_interval` gives it, after the mean")
    if is_(of_five, right):
        raise NotYet("alone it is right; as one of five comparisons the interval has to be wider")
    if is_(of_five, 5 * right):
        raise NotYet("five comparisons share the 5 % of errors; the width does not grow five-fold for that")
    raise NotYet("alone it is right; for one of five, tell `mean_and_interval` how many comparisons there are")


@check.exercise(5)
def enough(answer: Any) -> str:
    """The smallest ensemble with which all ten labels are heard with 99 %."""
    found = number("enough", answer, 1, what="a number of neurons")

    def heard(k: float, dead: float = 0.6, labels: int = 10) -> float:
        return float((1 - dead**k) ** labels)

    if found != round(found):
        raise NotYet(f"enough should be a whole number of neurons, and is {found:g}")
    if heard(found, labels=1) >= 0.99 > heard(found - 1, labels=1):
        raise NotYet("so many are enough for *one* label; all ten are to be heard at once")
    if heard(found, dead=0.4) >= 0.99 > heard(found - 1, dead=0.4):
        raise NotYet("0.6 is the probability that a neuron is dead, not that it lives")
    if heard(found) < 0.99:
        raise NotYet(f"too few: with {found:.0f} all ten are heard with a probability of only {heard(found):.1%}")
    if heard(found - 1) >= 0.99:
        raise NotYet("too many: with one neuron fewer it would do as well, and the least is asked for")
    return f"With the chapter's ten neurons a label, and this q, all ten labels are heard with {heard(10):.0%}."


@check.exercise(6)
def bias_that_wakes(answer: Any, layer: Any, noise: Tensor) -> str:
    """A bias at which the sleeping neuron fires in 5 to 15 % of the steps."""
    bias = number("bias", answer)
    n_inputs, own = layer.linear.in_features, layer.linear.weight.detach().abs().max()
    if own > math.sqrt(6 / (n_inputs + 1)) + 1e-6 or (layer.threshold, layer.penalty) != (1.0, 1.5):
        raise NotYet(
            "the layer is not as it was drawn: set its bias, and nothing else. Run the exercise's cell again, for a new"
            " `sleeper`"
        )
    with torch.no_grad():
        layer.linear.bias.fill_(bias)
        rate = (layer(noise)[1] > 0).double().mean().item()
    if rate == 0:
        raise NotYet(f"at a bias of {bias:.3g} the neuron is still dead")
    if not 0.05 <= rate <= 0.15:
        raise NotYet(
            f"at a bias of {bias:.3g} it fires in {rate:.1%} of the steps, not in 5 to 15 %: make the bias"
            f" {'larger' if rate < 0.05 else 'smaller'}"
        )
    return "That is Repair 2, for one neuron. Its weights have not moved, and now they can learn."


@check.exercise(7)
def shared(answer: Any) -> str:
    """Value and slopes of a shared gradient, in ensembles where some fire, none fires, and charges are below 0."""
    asked = function("shared", answer)
    generator = torch.Generator().manual_seed(70)
    drawn = [2 * torch.rand(n, generator=generator, dtype=torch.float64) - 0.2 for n in (3, 4, 6)]
    for charges in (torch.tensor([1.5, 0.5, 0.2]), torch.tensor([0.5, 0.9, -0.3]), torch.tensor([2.0, -1.0, 1.1])):
        _compare(asked, charges)
    _compare(asked, torch.tensor([-0.4, 0.0, -1.2]))
    for charges in drawn:
        charges[0] = 1.4
        _compare(asked, charges)
    return "It is the gradient of no loss, and that was the price: the chapter measures what it buys."


def _compare(asked: Any, charges: Tensor) -> None:
    told = "[" + ", ".join(f"{value:.3g}" for value in charges.tolist()) + "]"
    value, slope = ask("shared", lambda values: _value_and_slopes(asked, values), charges)
    outputs = (charges - 1).relu()
    if value.numel() != 1:
        raise NotYet(f"shared should return one number, the sum of the outputs, and returns {kind(value)}")
    if abs(value.item() - outputs.sum().item()) > 1e-5:
        raise NotYet(f"for the charges {told} the value should be the sum of the outputs, and is {value.item():.3g}")
    if slope is None and not outputs.any():
        slope = torch.zeros_like(charges)  # a constant has the slopes that are wanted where none fires
    if slope is None:
        raise NotYet("the result does not depend on the charges any more: was too much detached?")
    if not slope.isfinite().all():
        raise NotYet(f"for the charges {told}, where none fires, a slope is no number: is something divided by 0?")
    fires = (charges > 1).to(charges)
    ratio = outputs.sum() / charges.relu().sum().clamp(min=1e-12)
    right = ratio.expand(len(charges))
    if torch.allclose(slope, right, atol=1e-5):
        return
    mistakes = {
        "this is the plain gradient: only those that fired learn": fires,
        "those that fired get the ratio, and the silent ones nothing: all of the ensemble should get it": ratio * fires,
        "this is `silent_only`, where those that fired keep a slope of 1; here all get the ratio": torch.where(
            fires > 0, 1.0, ratio
        ),
        "the outputs keep their own slope, and the ratio comes on top": fires + ratio,
        "the slopes have the wrong sign": -right,
        "charges below 0 take no part in the ratio": (outputs.sum() / charges.sum()).expand(len(charges)),
        "neurons with a charge below 0 get their share as well": ratio * (charges > 0).to(charges),
        "all get the whole gradient: the slope should be the ratio of outputs to charges": torch.ones_like(charges),
        "the ratio is turned round": 1 / right,
        "the ratio is divided among the neurons: each should get all of it": right / len(charges),
        "the ratio is that of how many fire; it should be that of outputs and charges": fires.mean().expand(
            len(charges)
        ),
    }
    for words, mistake in mistakes.items():
        if torch.allclose(slope, mistake, atol=1e-5):
            raise NotYet(f"for the charges {told}: {words}" if "this is" not in words else words)
    found = "[" + ", ".join(f"{value:.4f}" for value in slope.tolist()) + "]"
    raise NotYet(f"for the charges {told} the value is right and the slopes are not: yours are {found}")


def _value_and_slopes(asked: Any, values: Tensor) -> tuple[Tensor, Tensor | None] | None:
    charges = values.clone().requires_grad_()
    result = asked(charges)
    if result is None:
        return None
    if not isinstance(result, Tensor):
        return tensor("shared(...)", result), None
    if not result.requires_grad or result.numel() != 1:
        return result.detach(), None
    (slope,) = torch.autograd.grad(result.sum(), charges, allow_unused=True)
    return result.detach(), slope

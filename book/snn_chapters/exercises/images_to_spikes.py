"""The checks of chapter 2's exercises."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from snn_helpers.long.exercise import Check, NotYet, ask, near, number, tensor

check = Check()
_near = partial(near, rtol=1e-4, atol=1e-4)


@check.exercise(1)
def one_pixel(mean: Any, spread: Any) -> str:
    """Mean and standard deviation of a flickering pixel of brightness 0.2, to three digits."""
    x = 0.2 - 0.5
    found = number("flicker_mean", mean)
    if abs(found - abs(x) / math.sqrt(12)) < 1e-3 and abs(number("flicker_spread", spread) - x / 2) < 1e-3:
        raise NotYet("the two numbers are in each other's place: the mean comes first")
    if abs(found - x / 2) > 1e-3:
        mistakes = {
            0.2: "that is the brightness; what arrives is made of x, and x is 0.5 less",
            0.1: "that is half the brightness; what flickers is x, and x is 0.5 less",
            -x / 2: "the size is right; the pixel is darker than mid grey, so look at the sign",
            x: "x is what arrives where the draw is at its largest; the mean draw is smaller",
            0.0: "the mean is 0 only where x is",
        }
        if abs(found - x / 2) <= 6e-3:
            raise NotYet(f"flicker_mean is {found:g}: that is near, but not to three digits")
        raise NotYet(f"flicker_mean is {found:g}: {_of(found, mistakes, 'it is the mean of u times x')}")
    found = number("flicker_spread", spread)
    right = abs(x) / math.sqrt(12)
    if abs(found - right) > 1e-3:
        mistakes = {
            -right: "a standard deviation is never below 0",
            x**2 / 12: "that is the variance; the standard deviation is its square root",
            abs(x) / 12: "in the variance the pixel is squared; take the root of the whole",
            0.2 / math.sqrt(12): "that would be right for the brightness; what flickers is x",
            abs(x) / 2: "that is the size of the mean",
            1 / math.sqrt(12): "that is the spread of the draw; the pixel is a factor",
            abs(x) / math.sqrt(3): "that is the root of the mean square; take off the square of the mean before",
            abs(x) / 2 / math.sqrt(12): "the half of the mean comes in once too often: x is what the draw multiplies",
            100 * right: "that is in per cent, and the pixel is not",
        }
        if abs(found - right) <= 6e-3:
            raise NotYet(f"flicker_spread is {found:g}: that is near, but not to three digits")
        raise NotYet(f"flicker_spread is {found:g}: {_of(found, mistakes, 'look at the variance once more')}")
    return "At a single step the noise is more than half as large as the mean: one frame tells little."


def _of(found: float, mistakes: dict[float, str], otherwise: str) -> str:
    return next((words for value, words in mistakes.items() if abs(found - value) < 5e-4), otherwise)


@check.exercise(2)
def as_many_frames(answer: Any) -> str:
    """A decay that does the work of a mean of 39 frames, to half a frame."""
    found = number("frames_decay", answer)
    if found == 39:
        raise NotYet("39 is the number of frames; a decay is between 0 and 1")
    if abs(found - 95) < 0.5:
        raise NotYet(f"a decay is between 0 and 1; {found:g} looks like per cent")
    decay = number("frames_decay", answer, 0, 1, what="a decay")
    if decay == 1:
        raise NotYet("a neuron with a decay of 1 never forgets: its state has no mean to settle at")
    frames = (1 + decay) / (1 - decay)
    if abs(decay - (1 - 1 / 39)) < 1e-3:
        raise NotYet(
            "the weights of a leaky sum do add up to 39 then, but they are not equal, as those of a mean are:"
            f" it does the work of {frames:.0f} frames"
        )
    if abs(frames - 39) > 0.5:
        raise NotYet(
            f"that neuron does the work of a mean of {frames:.1f} frames: it forgets too"
            f" {'slowly' if frames > 39 else 'fast'}"
        )
    return "Its time constant is about 20 steps: a neuron averages over about twice its time constant."


@check.exercise(3)
def read(answer: Any) -> str:
    """Labels and their probabilities, by the mean over the steps that count, example by example."""
    generator = torch.Generator().manual_seed(30)
    for n_steps, n_images, begin in ((12, 7, 0), (9, 5, 4), (6, 11, 5)):
        over_time = 3 * torch.randn(n_steps, n_images, 10, generator=generator, dtype=torch.float64)
        given = ask("read", answer, over_time, begin)
        if isinstance(given, Tensor) and given.shape == (2, n_images):
            given = tuple(given)
        if not isinstance(given, (tuple, list)) or len(given) != 2:
            raise NotYet("read should return two things, labels and probabilities")
        if any(value is None for value in given):
            raise NotYet("one of the two things that read returns is None")
        labels, probabilities = given
        right = over_time[begin:].mean(dim=0)
        if _near(tensor("the labels", labels), right.softmax(dim=1).amax(dim=1)):
            raise NotYet("labels and probabilities are in each other's place: the labels come first (also after `max`)")
        if tensor("the labels", labels).shape == (n_images, 10):
            raise NotYet("the labels should be one whole number for each image, and you have ten for each")
        labels = tensor("the labels", labels, [n_images])
        if not torch.equal(labels, right.argmax(dim=1).double()):
            raise NotYet(_of_labels(labels, over_time, begin))
        if tensor("the probabilities", probabilities).shape == (n_images, 10):
            raise NotYet("you return the probabilities of all labels; the task wants that of the answer")
        probabilities = tensor("the probabilities", probabilities, [n_images])
        if not _near(probabilities, right.softmax(dim=1).amax(dim=1)):
            raise NotYet(_of_probabilities(probabilities, over_time, begin))
    return "With the sum in place of the mean your labels would stay, and all of them would look certain."


def _of_labels(labels: Tensor, over_time: Tensor, begin: int) -> str:
    mistakes = {
        "one step too many is left out: `begin` is the first that counts": over_time[begin + 1 :],
        "one step too few is left out: `begin` is the first that counts": over_time[max(begin - 1, 0) :],
        "the steps before `begin` should be left out, and yours are in": over_time,
        "only the steps before `begin` count in yours; it should be the others": over_time[:begin],
        "only the last step counts in yours; it should be the mean over the steps": over_time[-1:],
    }
    for words, steps in mistakes.items():
        if len(steps) and torch.equal(labels, steps.mean(dim=0).argmax(dim=1).double()):
            return words
    if torch.equal(labels, over_time[begin:].amax(dim=0).argmax(dim=1).double()):
        return "the label of the highest single state wins in yours; it should be the highest mean"
    if torch.equal(labels, over_time[begin:].argmax(dim=2).mode(dim=0).values.double()):
        return "the label that wins most steps is the answer in yours; it should be the highest mean"
    if torch.equal(labels - 1, over_time[begin:].mean(dim=0).argmax(dim=1).double()):
        return "labels count from 0, and yours from 1"
    return "a label is not the one with the highest mean"


def _of_probabilities(probabilities: Tensor, over_time: Tensor, begin: int) -> str:
    steps = over_time[begin:]
    mean = steps.mean(dim=0)
    mistakes = {
        "the labels are right, and the network is too sure of them: that is the sum": steps.sum(dim=0).softmax(dim=1),
        "take the mean first and the softmax of it then; yours is the mean of the softmaxes": steps.softmax(dim=2).mean(
            dim=0
        ),
        "that is the mean state itself; a softmax makes it a probability": mean,
        "that is the logarithm of the probability": mean.log_softmax(dim=1),
        "the softmax has to run over the ten labels, and yours runs over the images": mean.softmax(dim=0),
        "the labels are right; in the probabilities the steps before `begin` should be left out too": over_time.mean(
            dim=0
        ).softmax(dim=1),
        "the labels are right; in the probabilities one step too few is left out": over_time[max(begin - 1, 0) :]
        .mean(dim=0)
        .softmax(dim=1),
        "the labels are right; in the probabilities one step too many is left out": over_time[begin + 1 :]
        .mean(dim=0)
        .softmax(dim=1),
        "the sum is divided by the number of all steps, and should be by the number of those that count": (
            steps.sum(dim=0) / len(over_time)
        ).softmax(dim=1),
        "a sigmoid looks at one label by itself; a softmax compares the ten": mean.sigmoid(),
        "a mean state may be below 0, so a share of the sum is no probability; a softmax makes it one": mean
        / mean.sum(dim=1, keepdim=True),
        "a spike is not a state: yours leaves out what is below 0": steps.relu().mean(dim=0).softmax(dim=1),
    }
    for words, scores in mistakes.items():
        if _near(probabilities, scores.amax(dim=1)) or _near(probabilities, scores.gather(1, _top(mean)).squeeze(1)):
            return words
    if _near(probabilities / 100, mean.softmax(dim=1).amax(dim=1)):
        return "the probabilities should be shares, between 0 and 1; yours are per cent"
    return "the labels are right, their probabilities are not: each is the label's part of the softmax of the means"


def _top(mean: Tensor) -> Tensor:
    return mean.argmax(dim=1, keepdim=True)


@check.exercise(4)
def how_many_steps(answer: Any, images: Tensor) -> str:
    """The least number of steps after which the mean frame strays by no more than 0.01."""
    mean_square = images.square().mean().item()
    least = math.ceil(mean_square / (12 * 0.01**2) - 1e-9)
    steps = number("needed_steps", answer, 1, what="a number of steps")
    mistakes = {
        mean_square / (12 * 0.01): "0.01 is a root mean square; the law is for its square, a variance",
        12 * mean_square / 0.01**2: "a variance of a twelfth: divide by 12",
        mean_square / 0.01**2: "that would be right if the draws had a variance of 1; theirs is a twelfth",
        (0.01**-2) / 12: "the law has the mean of x squared in it, and yours has not",
        math.sqrt(mean_square) / (12 * 0.01**2): "the law has the mean of x squared in it; yours has the root of that",
        math.sqrt(mean_square / 12) / 0.01: "that is the root of the number: what strays shrinks with the root of T",
    }
    for value, words in mistakes.items():
        if value - 1 < steps < value + 1 and abs(value - least) > 2:
            raise NotYet(words)
    if steps != round(steps):
        raise NotYet(f"a number of steps is a whole number, and {steps:g} is not; round it to the side that is enough")
    if steps == least - 1:
        raise NotYet("it still strays by a little more than 0.01: to which side has a number of steps to be rounded?")
    strays = math.sqrt(mean_square / (12 * steps))
    if steps < least:
        raise NotYet(f"with {steps:g} steps it still strays by {strays:.4f}: show it longer")
    if steps > least:
        raise NotYet("fewer steps would do as well: look for the least number")
    return "Four times as many steps would halve it: noise is expensive to average away."


@check.exercise(5)
def without_background(silent_images: Any, new_bias: Any, images: Tensor, net: nn.Module) -> str:
    """Images from 0 to 1, and a bias that makes up for the shift: the same currents, neuron by neuron."""
    images = images.double().cpu().flatten(1)
    linear = net.layers[0].linear  # type: ignore[index, union-attr]
    weight, bias = (part.detach().double().cpu() for part in (linear.weight, linear.bias))
    if images.min() != -0.5 or images.max() > 0.5:
        raise NotYet(
            "`images` itself has changed, perhaps by += or another change in place: restart the kernel, run all cells"
            " above, and make a new tensor instead"
        )
    if bias.abs().max() > weight.shape[1] ** -0.5 + 1e-6:
        raise NotYet(
            "the network's own bias has changed, perhaps by -= or another change in place: restart the kernel, run"
            " all cells above, and make a new tensor instead"
        )
    silent = tensor("silent_images", silent_images)
    if silent.numel() != images.numel():
        raise NotYet(f"silent_images should be as many pixels as `images`, and has the shape {list(silent.shape)}")
    silent = silent.reshape(images.shape)
    if not _near(silent, images + 0.5):
        if _near(silent, 0.5 - images):
            raise NotYet("black and white are exchanged: 0 is for black")
        least, most = silent.min().item(), silent.max().item()
        if least != 0 or not 0.9 < most <= 1:
            raise NotYet(f"the pixels should span 0 to 1; yours span {least:.1f} to {most:.1f}")
        raise NotYet("the pixels span 0 to 1, but they have not all moved by the same amount; grey has to stay grey")
    found = tensor("new_bias", new_bias)
    if found.shape == (1, len(bias)):
        found = found[0]
    if found.shape != bias.shape:
        raise NotYet(f"there are {len(bias)} neurons, so {len(bias)} biases; yours has the shape {list(found.shape)}")
    off = ((silent - images) @ weight.T + found - bias).abs().max().item()
    if off > 1e-3:
        raise NotYet(_of_bias(found, weight, bias, off))
    return "So without flicker the background is a bias and nothing more."


def _of_bias(found: Tensor, weight: Tensor, bias: Tensor, off: float) -> str:
    rows = weight.sum(dim=1)
    mistakes = {
        "that is the old bias: all pixels have moved up, so it has to make up for that": bias,
        "the sign: all pixels have moved up, so the bias has to pull down what they add": bias + 0.5 * rows,
        "the pixels have moved by a half and not by 1": bias - rows,
        "the old bias is missing": -0.5 * rows,
        "the old bias has the wrong sign: it stays, and something is added to it": -bias - 0.5 * rows,
        "the pixels arrive whole here, and have moved by a half (under flicker half of that would do)": bias
        - 0.25 * rows,
        "a pixel that moves changes a current by its weight times that": bias - 0.5,
        "that is what is to be added to the old bias, with the wrong sign": 0.5 * rows,
        "every pixel adds its part: it is the sum over a neuron's weights, not their mean": bias
        - 0.5 * weight.mean(dim=1),
        "every neuron has weights of its own; yours takes those of all neurons together": bias - 0.5 * weight.sum(),
    }
    for words, mistake in mistakes.items():
        if _near(found, mistake):
            return words
    return f"the currents differ by up to {off:.2f}: write x as silent image - 0.5 in W x + b, and multiply out"


@check.exercise(6)
def rate_code(answer: Any) -> str:
    """Spikes with the brightness as probability: each pixel, step and call has draws of its own."""

    def show(image: Tensor, n_steps: int, generator: torch.Generator) -> Tensor:
        spikes = tensor("the spikes", ask("rate_code", answer, image, n_steps, generator))
        wanted = [n_steps, *image.shape]
        if list(spikes.shape) != wanted:
            raise NotYet(f"the shape should be {wanted}, time first; it is {list(spikes.shape)}")
        return spikes

    def drawn(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    ramp = torch.linspace(-0.5, 0.5, 784).reshape(1, 28, 28)
    spikes = show(ramp, 2000, drawn(61))
    if not set(spikes.unique().tolist()) <= {0.0, 1.0}:
        raise NotYet("a spike is 0 or 1; yours have other values too")
    rate, brightness = spikes.mean(dim=0), ramp.double() + 0.5
    off = (rate - brightness).abs()
    if (off > 6 * (brightness * (1 - brightness) / 2000).sqrt() + 1e-3).any():
        raise NotYet(_of_rates(rate, brightness))
    if not torch.equal(spikes, show(ramp, 2000, drawn(61))):
        raise NotYet("the same seed should give the same spikes: the draws have to come from `generator`")
    if torch.equal(spikes, show(ramp, 2000, drawn(62))):
        raise NotYet("another seed gives the same spikes: draw from `generator`, and do not seed it yourself")
    twice = drawn(63)
    if torch.equal(show(ramp, 2000, twice), show(ramp, 2000, twice)):
        raise NotYet("shown again with the same generator, the image should get new draws, and gets the same ones")

    for b, seed, shape in ((0.5, 64, (4, 1, 10, 10)), (0.3, 65, (4, 100))):
        grey, n_steps = torch.full(shape, b - 0.5), 1000
        apart = show(grey, n_steps, drawn(seed)).reshape(n_steps, -1) - b
        one = b * (1 - b)
        if apart.mean().abs() > 0.2 * b:
            raise NotYet(
                f"an image that is grey all over, of brightness {b}, fires at a rate of {apart.mean() + b:.2f}:"
                " a pixel's probability is its own brightness, whatever the others are"
            )
        counts, totals = apart.sum(dim=0).var().item() / (n_steps * one), apart.sum(dim=1).var().item() / (400 * one)
        if (apart[1:] == apart[:-1]).all():
            raise NotYet("each step repeats the one before it: it needs fresh draws at every step")
        if totals > 1.3:
            raise NotYet("pixels of one brightness fire together: each pixel needs a draw of its own, in each image")
        follows = (apart[1:] * apart[:-1]).mean().item() / one
        if counts < 0.7 or counts > 1.3 or abs(follows) > 0.03:
            told = "too little" if counts < 0.7 else "otherwise than it should"
            raise NotYet(
                f"a step depends on the steps before it: the number of spikes varies {told} from pixel to pixel;"
                " draw each step by itself"
            )
        if totals < 0.7:
            raise NotYet("pixels take turns: each should be drawn without regard to the others")
    return "White pixels have no noise in this code, and black ones none either: that is why digits suit it."


def _of_rates(rate: Tensor, brightness: Tensor) -> str:
    mistakes = {
        "black fires most in yours, and white least: the comparison is turned round": 1 - brightness,
        "black is 0.5 too low: the image is normalised, and a probability is a brightness": (brightness - 0.5).clamp(
            min=0
        ),
        "black fires as often as white in yours: a probability is a brightness, from 0 to 1": (brightness - 0.5).abs(),
        "every pixel fires half as often as it should": brightness / 2,
        "all pixels fire equally often: compare each draw with the pixel": brightness * 0 + rate.mean(),
    }
    for words, mistake in mistakes.items():
        if (rate - mistake).abs().max() < 0.1:
            return words
    if bool(((rate == 0) | (rate == 1)).all()):
        return "each pixel fires always or never: each step needs fresh draws"
    off = (rate - brightness).abs().max()
    return f"a firing rate is off by {off:.2f}: it should come near the brightness of the image that is given"

"""The checks of chapter 4's exercises."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snn_chapters.comparison import XAVIER, run_trial
from snn_helpers import SpikingNet
from snn_helpers.long.exercise import Check, NotYet, ask, function, kind, number, tensor
from snn_helpers.statistics import mean_and_interval

check = Check()


@check.exercise(1)
def twin(answer: Any) -> str:
    """The ordinary twin of spiking networks of several sizes, on images of each size."""
    generator = torch.Generator().manual_seed(10)
    for sizes in ((12, 7, 5), (30, 4, 3), (9, 20, 10)):
        net = SpikingNet(3, 0, sizes, threshold=1.4, generator=generator)
        lower, upper = (module for module in net.modules() if isinstance(module, nn.Linear))
        for linear in (lower, upper):
            nn.init.normal_(linear.bias, generator=generator)
        images = torch.randn(6, sizes[0], generator=generator)
        given = ask("twin_of", answer, net)
        if not callable(given):
            raise NotYet(f"twin_of should return a network, and returns {kind(given)}")
        if isinstance(given, SpikingNet):
            raise NotYet("twin_of returns a spiking network; its twin has no steps of time, no leak and no reset")
        found = tensor("the answer of the network of twin_of(net)", ask("the network of twin_of(net)", given, images))
        if list(found.shape) == [6]:
            raise NotYet("the network should answer a number for each label, not the label that it would choose")
        if list(found.shape) != [6, sizes[2]]:
            raise NotYet(
                f"for 6 images and {sizes[2]} labels the network should answer [6, {sizes[2]}], not"
                f" {list(found.shape)}: take the sizes from the layers of net"
            )
        with torch.no_grad():
            if not _same_answer(found, upper(lower(images).relu())):
                if not _same_answer(found, given(images)):
                    raise NotYet("the same network answers the same images otherwise the second time: what is random?")
                raise NotYet(_of_twin(found, ask("twin_of", answer, net)(images), images, lower, upper))
    return "The two share every weight. What each makes of them is where they part."


def _same_answer(one: Tensor, other: Tensor) -> bool:
    """The same but for what a softmax does not see: log-probabilities will do, too."""
    return bool(torch.allclose(one.log_softmax(-1), other.double().log_softmax(-1), rtol=1e-4, atol=1e-4))


def _of_twin(found: Tensor, again: Any, images: Tensor, lower: nn.Linear, upper: nn.Linear) -> str:
    drive = lower(images)
    mistakes = {
        "something is missing between the two layers: without it they are one layer": upper(drive),
        "the cut belongs between the layers; the answer itself is not cut off": upper(drive.relu()).relu(),
        "the cut of the twin is at 0, not at the threshold of the spiking neuron": upper((drive - 1.4).relu()),
        "the biases belong to it, too: take the state of each linear layer whole": drive.sub(lower.bias).relu()
        @ upper.weight.T,
        "the answer is the last layer's sum; a softmax makes probabilities of it": upper(drive.relu()).softmax(-1),
    }
    for words, mistake in mistakes.items():
        if _same_answer(found, mistake):
            return words
    if not _same_answer(found, again.double()):
        return "two calls with one net give two networks: is a weight or a bias drawn afresh? All should be net's"
    return "it does not answer as linear, ReLU, linear with the weights of net do"


@check.exercise(2)
def pick(answer: Any) -> str:
    """The rate with the best mean, in any order, and "edge" where that is the lowest or the highest rate."""
    generator = torch.Generator().manual_seed(20)
    function("pick", answer)
    for rates, place in (([0.1, 0.2, 0.4, 0.8], 1), ([0.05, 0.3, 0.9], 0), ([0.1, 0.5, 1.0, 2.0, 4.0], 4)):
        for _ in range(3):
            scores = _search(rates, place, generator)
            inside = 0 < place < len(rates) - 1
            given = copy.deepcopy(scores)
            found = ask("pick", lambda given=given: answer(given))
            if given != scores:
                raise NotYet("pick changes the dictionary that it was given; whoever calls it still needs the old one")
            told = f"for {scores}: "
            if isinstance(found, str):
                if found.strip().lower() != "edge":
                    raise NotYet(f'pick should return a rate or the text "edge", and returns {kind(found)}')
                if inside:
                    raise NotYet(told + "the best rate has neighbours on both sides. Does your edge go by the order?")
                continue
            rate = number("pick(...)", found)
            rate = next((one for one in rates if math.isclose(one, rate, rel_tol=1e-6)), rate)  # float32 will do
            if rate == rates[place]:
                if inside:
                    continue
                raise NotYet(told + "no lower, or no higher, rate was tried than the best: the search is not over")
            raise NotYet(told + _of_pick(rate, scores))
    return "The chapter's `choose` asks for more: three seeds, and neighbours within a factor of 1.25."


def _search(rates: Sequence[float], place: int, generator: torch.Generator) -> dict[float, list[float]]:
    """Held-out accuracies of three seeds: one rate has the best mean, others the best run and median."""
    scores = {}
    for position in torch.randperm(len(rates), generator=generator).tolist():
        each = {0: [0.93, 0.885, 0.885], 1: [0.94, 0.865, 0.865], 2: [0.889, 0.89, 0.891]}.get(
            (position - place) % len(rates), [0.875, 0.88, 0.885]
        )
        each = [each[place_of] for place_of in torch.randperm(3, generator=generator).tolist()]
        moved = (torch.rand(3, generator=generator) * 0.0035).tolist()
        scores[rates[position]] = [round(a + b, 3) for a, b in zip(each, moved)]
    return scores


def _of_pick(found: float, scores: Mapping[float, Sequence[float]]) -> str:
    if found == max(scores, key=lambda rate: max(scores[rate])):
        return "that rate has the best single run, and the luck of one seed. What is its mean?"
    if found == min(scores, key=lambda rate: sum(scores[rate])):
        return "that is the worst rate: more accuracy is better"
    if found == max(scores, key=lambda rate: sorted(scores[rate])[1]):
        return "that rate has the best median, or the best of the worst runs; the mean is asked for"
    if found in scores:
        return "another rate has a better mean"
    if any(abs(found - sum(each) / 3) < 1e-9 or found in each for each in scores.values()):
        return "that is an accuracy; which rate does it belong to?"
    return f"{found:g} is none of the rates"


@check.exercise(3)
def which_regularise(answer: Any) -> str:
    """The letters of those that narrow the gap and raise the test accuracy."""
    if isinstance(answer, np.ndarray):
        answer = answer.reshape(-1).tolist()
    if isinstance(answer, Mapping) or not isinstance(answer, (str, list, tuple, set, frozenset)):
        raise NotYet(f'regularisers should be a list of letters, such as ["E", "F"], and is {kind(answer)}')
    if not all(isinstance(one, str) for one in answer):
        raise NotYet('the letters are texts: put them in quotes, as in ["E", "F"]')
    words = re.findall(r"[A-Z]+", (answer if isinstance(answer, str) else " ".join(answer)).upper())
    letters = set("".join(word for word in words if word != "AND"))
    if letters - set("ABCD"):
        raise NotYet("only A, B, C and D are to be judged; the plain network is what they are compared with")
    if "B" in letters:
        raise NotYet("one of yours narrows the gap by doing worse on both")
    if "C" in letters:
        raise NotYet("one of yours is the more accurate; is its gap narrower, too?")
    if letters != {"A", "D"}:
        raise NotYet("at least one is missing: work out the gap of each, and compare both columns with the plain one")
    return "With real seeds each column has its interval, and both must lie above 0."


@check.exercise(4)
def multiplications(answer: Any) -> str:
    """Multiplications for one image, for networks of several depths."""
    for sizes, n_steps in (((784, 100, 10), 128), ((20, 7, 5), 1), ((30, 8, 6, 4), 9), ((11, 3), 5)):
        found = number("multiplications(...)", ask("multiplications", answer, sizes, n_steps), 0, whole=True)
        layers = [a * b for a, b in zip(sizes, sizes[1:])]
        if found == n_steps * sum(layers):
            continue
        mistakes = {
            "time is missing: the spiking network does all of it again at each step": sum(layers),
            "a bias is added; it multiplies nothing": n_steps * (sum(layers) + sum(sizes[1:])),
            "the layers' multiplications add up; yours multiply": n_steps * math.prod(layers),
            "the sizes of all layers in one product are too many: each layer has its own matrix": n_steps
            * math.prod(sizes),
            "there is more than one layer": n_steps * layers[0],
            "neurons are counted; what multiplies is the weights": n_steps * sum(sizes),
            "each step costs all the multiplications; yours are added to the steps": n_steps + sum(layers),
        }
        for words, mistake in mistakes.items():
            if found == mistake:
                raise NotYet(words)
        if found and found % sum(layers) == 0:
            raise NotYet("the weights are right: does each multiply once in each of the n_steps that it is given?")
        raise NotYet(
            f"for the sizes {list(sizes)} and {n_steps} steps, {found:g} is not it: how many weights are there?"
        )
    return "An input of 0 would make its multiplication needless; chapter 12 counts what that could save."


@check.exercise(5)
def two_runs(answer: Any, as_published: Sequence[float]) -> str:
    """The half-width of the interval of the mean of the first two differences."""
    found = number("half_width", answer, 0, what="half of an interval")
    mean, half = mean_and_interval(as_published[:2])
    spread = abs(as_published[0] - as_published[1]) / math.sqrt(2)  # their standard deviation
    if abs(found - half) <= 0.01 * half:
        return "Two seeds show a lead only if it is over six times their difference; a third makes t a third of that."
    mistakes = {
        "the differences are in points already: was it multiplied by 100 once more?": 100 * half,
        "it should be in points: was it divided by 100?": half / 100,
        "that is the whole width of the interval; half of it is asked for": 2 * half,
        "that is the mean; the second number of the two is the half-width": mean,
        "that is the standard deviation of the two: what does the formula do with it?": spread,
        "that is the standard error; Student's t is missing": spread / math.sqrt(2),
        "t is that of many seeds; with two seeds it is far larger": 1.96 * spread / math.sqrt(2),
        "that takes all the seeds; only the first two are asked for": mean_and_interval(as_published)[1],
        "the root of the number of seeds is missing": half * math.sqrt(2),
        "that is widened for four comparisons; here there is one": mean_and_interval(as_published[:2], 4)[1],
        "that takes three seeds": mean_and_interval(as_published[:3])[1],
        "those are other seeds than the first two": mean_and_interval(as_published[-2:])[1],
        "that is the difference of the two; how well do they tell their mean?": 2 * spread / math.sqrt(2),
        "that is Student's t alone": 12.7062,
        "2.5 % lie outside on either side: t is that of 0.975": half * 6.3138 / 12.7062,
        "the standard deviation divides by one fewer than there are": half / math.sqrt(2),
        "t goes by the degrees of freedom, one fewer than there are seeds": half * 4.3027 / 12.7062,
    }
    for words, mistake in mistakes.items():
        if abs(found - mistake) <= 0.01 * abs(mistake):
            raise NotYet(words)
    raise NotYet(
        f"{found:g} is not it: take the first two differences, and the second of the two numbers of mean_and_interval"
    )


@check.exercise(6)
def flicker(plain: Any, flickering: Any, **given: Any) -> str:
    """Two rows of live trials: the plain one is in `live`, the flickering one is run again."""
    rows = {"plain": (plain, XAVIER), "flickering": (flickering, "mlp, flickering input")}
    for name, (row, network) in rows.items():
        if not isinstance(row, Mapping) or not set(given["live"][0]) <= set(row):
            raise NotYet(f"{name} should be a row of results, as run_trial returns it, and is {kind(row)}")
        if row["network"] != network:
            raise NotYet(f"{name} should be the row of {network!r}, and is that of {row['network']!r}")
        for key, wanted in (("learning_rate", 0.1), ("seed", given["seed"]), ("n_train", len(given["train"]))):
            if row[key] != wanted:
                raise NotYet(
                    f"{name} has {key} = {row[key]}, and should have {wanted}, so that the two can be compared"
                )
    first = next(row for row in given["live"] if (row["network"], row["seed"]) == (XAVIER, given["seed"]))
    again = run_trial(
        "mlp, flickering input", given["seed"], given["train"], given["test"], learning_rate=0.1, **given["settings"]
    )
    for name, row, other in (("plain", plain, first), ("flickering", flickering, again)):
        for key in ("n_steps", "batch_size", "n_updates"):
            if row[key] != other[key]:
                raise NotYet(f"{name} has {key} = {row[key]}; give both trials the same `**settings`")
        if any(abs(row[key] - other[key]) > 5e-3 * other[key] + 1e-6 for key in ("train_loss", "test_loss")):
            raise NotYet(f"{name} comes out otherwise here: is it trained on `train` and tested on `test`?")
    if given["settings"]["n_updates"] >= 60 and len(given["train"]) >= 500:
        ratio = flickering["train_loss"] / plain["train_loss"]
        if not 1.3 < ratio < 3:
            raise NotYet(f"the training losses have a ratio of {ratio:.2f}, not about 2")
    return "Noise at the input slows learning at this rate; the chapter's tuned networks may take a larger one."


@check.exercise(7)
def equal_steps(equal_step: Any, equal_weights: Any, **given: Any) -> str:
    """Accuracies of the article's twin at a rate of equal steps, and of the twin with equal weights, seed by seed."""
    seeds = list(given["seeds"])
    found = {}
    for name, answer in (("equal_step", equal_step), ("equal_weights", equal_weights)):
        found[name] = _accuracies(name, answer, seeds)
    by_network = {
        network: [row["test_accuracy"] for row in given["live"] if row["network"] == network]
        for network in ("mlp", XAVIER)
    }
    if not _near(found["equal_weights"], by_network[XAVIER]):
        if _near(sorted(found["equal_weights"]), sorted(by_network[XAVIER])):
            raise NotYet("equal_weights has the right accuracies in another order: that of `seeds`, please")
        if _near(found["equal_weights"], by_network["mlp"]):
            raise NotYet("equal_weights holds the article's twin; the network with the other weights is asked for")
        raise NotYet("equal_weights should be the test accuracies of XAVIER in `live`")
    rate = 0.1 * given["times"]["as in the article"]
    # On the CPU the same run comes out the same; a graphics card may add up in another order.
    repeats = 2e-3 if str(given["settings"]["device"]) == "cpu" else 0.05
    for place in (0, len(seeds) - 1):
        again = run_trial("mlp", seeds[place], given["train"], given["test"], learning_rate=rate, **given["settings"])[
            "test_accuracy"
        ]
        if abs(found["equal_step"][place] - again) > repeats:
            if _near(found["equal_step"], by_network["mlp"]):
                raise NotYet("equal_step holds the accuracies at the rate of 0.1; it should be many times as high")
            raise NotYet(
                f"equal_step: seed {seeds[place]} comes out otherwise here. Is it the article's twin, at the rate of"
                " the task, with the same `**settings`?"
            )
    if given["settings"]["n_updates"] >= 60 and len(given["train"]) >= 500 and given["settings"]["n_steps"] >= 32:
        if max(found["equal_step"]) > 0.3:
            raise NotYet("equal_step: at this rate the twin should learn next to nothing")
        if sum(found["equal_weights"]) < sum(by_network["mlp"]):
            raise NotYet("equal_weights should be above the article's twin in the mean")
    return "To first order the steps are equal; at this rate a step is not small, and the explanation fails."


def _accuracies(name: str, answer: Any, seeds: Sequence[int]) -> list[float]:
    if isinstance(answer, Sequence) and any(isinstance(one, Mapping) for one in answer):
        raise NotYet(f"{name} holds whole rows: take their 'test_accuracy'")
    found = tensor(name, answer).flatten().tolist()
    if len(found) != len(seeds):
        raise NotYet(f"{name} should hold one accuracy for each of the {len(seeds)} seeds, and holds {len(found)}")
    return [number(f"an accuracy in {name}", one, share=True, what="an accuracy") for one in found]


def _near(one: Sequence[float], other: Sequence[float]) -> bool:
    close: Callable[[float, float], bool] = lambda a, b: abs(a - b) < 1e-3  # noqa: E731
    return len(one) == len(other) and all(map(close, one, other))

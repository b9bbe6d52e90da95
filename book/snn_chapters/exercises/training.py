"""The checks of chapter 3's exercises."""

from __future__ import annotations

import copy
import gc
import math
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_helpers import SpikingLayer, SpikingNet
from snn_helpers.long.exercise import Check, NotYet, Undone, ask, call, near, number, tensor

check = Check()
_close = partial(near, rtol=1e-4, atol=1e-5)

Run = tuple[SpikingNet, torch.optim.SGD, torch.Generator]


# --- the training step ----------------------------------------------------------------------------


def _run(seed: int, momentum: float = 0.5, rate: float = 0.1) -> Run:
    """A small network, its optimiser, and the generator of its flicker."""
    model = SpikingNet(20, sizes=(12, 9, 10), generator=torch.Generator().manual_seed(seed))
    return (
        model,
        torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum),
        torch.Generator().manual_seed(seed + 1),
    )


def _batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(16, 12, generator=generator) * 2 - 0.5, torch.randint(10, (16,), generator=generator)


def _step(
    run: Run, images: Tensor, labels: Tensor, forgets: bool = True, of: str = "mean", up: int = 1, looks: int = 0
) -> float:
    model, sgd, noise = run
    for _ in range(looks):  # a showing that nothing is learned from
        model(images, noise)
    if forgets:
        sgd.zero_grad()
    loss = F.nll_loss(model(images, noise), labels, reduction=of)
    (up * loss).backward()
    sgd.step()
    return loss.item()


def _twin(run: Run) -> Run:
    """The same run once more: the optimiser of the copy belongs to the network of the copy."""
    model, sgd = copy.deepcopy(run[:2])
    for parameter, copied in zip(run[0].parameters(), model.parameters()):  # a copy of a parameter has no gradient
        copied.grad = None if parameter.grad is None else parameter.grad.clone()
    return model, sgd, _again(run[2])


def _again(noise: torch.Generator) -> torch.Generator:
    new = torch.Generator()
    new.set_state(noise.get_state())
    return new


def _weights(run: Run) -> Tensor:
    return torch.cat([p.detach().flatten() for p in run[0].parameters()])


@check.exercise(1)
def training_step(answer: Any) -> str:
    """Steps with and without momentum, over old gradients, against the same steps of the check's own run."""
    for seed, momentum, rate in ((11, 0.5, 0.1), (14, 0.0, 0.04)):
        run = _run(seed, momentum, rate)
        for parameter in run[0].parameters():  # what an earlier step may have left
            parameter.grad = torch.full_like(parameter, 0.3)
        wanted = _twin(run)  # of its own, so that a momentum that the answer does not gather is missed
        for batch in range(3):
            images, labels = _batch(10 * seed + batch)
            before = _twin(run)
            loss = _step(wanted, images, labels)
            shown = images.clone(), labels.clone()
            model, sgd, noise = run
            told = call("training_step", answer, model, sgd, *shown, noise)
            moved = not torch.equal(_weights(run), _weights(before))
            drawn = not torch.equal(noise.get_state(), before[2].get_state())
            if told is None and not moved and not drawn:
                raise Undone("training_step does nothing so far")
            if not (torch.equal(shown[0], images) and torch.equal(shown[1], labels)):
                raise NotYet("training_step changes the images or the labels that it was given, in place")
            if not drawn:
                raise NotYet(
                    "the flicker does not come from `noise`: the network that is given takes it as its second argument"
                )
            if not _close(_weights(run), _weights(wanted)):
                raise NotYet(_of_step(run, before, images, labels))
            if told is None:
                raise NotYet("the weights have moved as they should; the function should return the loss as well")
            told = number("the loss", told)
            if abs(told - loss) > 1e-3 * max(1, abs(loss)):
                raise NotYet(f"the weights have moved as they should; return the loss of the batch, and not {told:g}")
            if not torch.equal(noise.get_state(), wanted[2].get_state()):
                raise NotYet(
                    "the step is right, and then more is drawn from `noise`: the images are shown once in a step"
                )
            if momentum and sgd.state_dict()["state"].keys() != wanted[1].state_dict()["state"].keys():
                raise NotYet("the weights have moved, and not by `sgd`: the optimiser that is given makes the step")
    return "These lines know nothing about spikes: any network in PyTorch is trained so."


def _of_step(run: Run, before: Run, images: Tensor, labels: Tensor) -> str:
    if torch.equal(_weights(run), _weights(before)):
        return (
            "the weights have not moved: the gradient has to be there when the optimiser makes its step, and the"
            " network has to be the one that is given"
        )

    def other(**how: Any) -> Run:
        twin = _twin(before)
        _step(twin, images, labels, **how)
        return twin

    several = other()
    _step(several, images, labels, forgets=False)
    mistakes = {
        "the gradient of the step before is still in it: forget it first": other(forgets=False),
        "the loss of a batch is the mean over its images; yours is the sum": other(of="sum"),
        "it goes uphill: what is to become small is the loss, the negative log-probability": other(up=-1),
        "it makes more than one step": several,
        "the images are shown twice, each time with fresh flicker: once is enough": other(looks=1),
    }
    for words, mistake in mistakes.items():
        if _close(_weights(run), _weights(mistake)):
            return words
    return "the weights have moved, but not by one step down the gradient of this batch's loss"


# --- numbers of the text --------------------------------------------------------------------------


@check.exercise(2)
def real_loss(loss: Any, probability: Any) -> str:
    """0.0004, printed for batches of 250 images out of 10,000: a mean loss of 0.1."""
    found = number("real_loss", loss)
    if abs(found - 0.1) > 5e-4:
        mistakes = {
            -0.1: "the logarithm of a probability is below zero, and its loss is not",
            0.0004 / 250: "it has been divided once too often, so there is something to undo, not to do again",
            0.0004 * 10_000: "that undoes the division by the number of examples; the mean loss does need one",
            0.0004 * 40: "that is the factor of the number of batches; what has been divided by without need?",
            0.0004: "that is what was printed",
        }
        words = next((words for value, words in mistakes.items() if math.isclose(found, value, rel_tol=1e-3)), None)
        raise NotYet(f"real_loss is {found:g}: {words or 'a batch mean has been divided by its size already'}")
    found = number("right_probability", probability)
    if abs(found - math.exp(0.1)) < 1.5e-3:
        raise NotYet(f"right_probability is {found:g}, and a probability is at most 1: mind the sign of the loss")
    found = number("right_probability", probability, share=True, what="a probability")
    right = math.exp(-0.1)
    if abs(found - right) > 9e-4:  # three digits, rounded or cut off
        mistakes = {
            math.exp(-0.0004): "that is what the printed loss claims; take the real one",
            1 - 0.1: "that is near, but a loss is a logarithm: undo the logarithm",
            0.1: "that is the loss; the probability is what its logarithm was taken of",
            1 - right: "that is the probability of all the other labels",
            10**-0.1: "it is the natural logarithm, not that to the base of 10",
            2**-0.1: "it is the natural logarithm, not that to the base of 2",
        }
        words = next((words for value, words in mistakes.items() if abs(found - value) < 1.5e-3), None)
        raise NotYet(f"right_probability is {found:g}: {words or 'the loss is its negative natural logarithm'}")
    return "The geometric mean is the fair one here: a single certain mistake weighs as much as many good answers."


@check.exercise(3)
def silent_here(answer: Any, outputs: Tensor, which: int) -> str:
    """The share of hidden neurons that never fire for one image."""
    n_neurons = outputs.shape[2]
    fires = outputs > 0  # [T, B, N]
    right = (~fires[:, which].any(dim=0)).double().mean().item()
    found = number("silent_here", answer)
    if abs(found - right) < 0.4 / n_neurons:
        return "Many are silent for one digit. Whether it is the same ones for all digits, the next cell asks."
    if abs(found - right * n_neurons) < 0.4:
        raise NotYet("that is how many they are, or per cent; a share is between 0 and 1")
    found = number("silent_here", found, share=True, what="a share")
    mistakes = {
        1 - right: "that is the share of the neurons that do fire",
        (~fires[:, which]).double().mean().item(): (
            "that counts single steps without a spike; a silent neuron has none in any step"
        ),
        (~fires.any(dim=0)).double().mean().item(): "that is over all images; the question is about one",
        (~fires.any(dim=0).any(dim=0)).double().mean().item(): "those are silent for every image",
        (~fires[:, which].any(dim=1)).double().mean().item(): (
            "that counts steps in which no neuron fires; wanted are neurons that fire at no step"
        ),
        (~fires[:, which].all(dim=0)).double().mean().item(): (
            "those put out nothing at one step or more; a silent neuron puts out nothing at all of them"
        ),
    }
    words = next((words for value, words in mistakes.items() if abs(found - value) < 2e-3), None)
    raise NotYet(words or f"{found:g} is not the share of the neurons that put out nothing at every step")


# --- going on ---------------------------------------------------------------------------------------


@check.exercise(4)
def snapshot(take: Any, put_back: Any) -> str:
    """A run that is kept, goes on, and is taken up by two others, one after the other: all must end alike."""
    for seed in (41, 44):
        run = _run(seed)
        for batch in range(3):
            _step(run, *_batch(seed + batch))
        kept = _twin(run)
        saved = call("snapshot", take, *run)
        if saved is None:
            raise Undone("snapshot returns None so far")
        if not _alike(run, kept):
            raise NotYet("snapshot changes the run itself, its weights, momentum or generator; it should only copy")
        for batch in range(3, 6):
            _step(run, *_batch(seed + batch))
        other = _run(seed + 100)
        call("go_on", put_back, *other, saved)
        _like(other, kept, run)
        for batch in range(3, 6):
            _step(other, *_batch(seed + batch))
        if not torch.equal(_weights(other), _weights(run)):
            raise NotYet("weights, momentum and flicker are back, and still the run goes on otherwise")
        second = _run(seed + 200)
        call("go_on", put_back, *second, saved)
        if not _alike(second, kept):
            raise NotYet(_used_up(second, kept))
    return "`fit` keeps the same things, and the order of the images, the place in the epoch, and the history."


def _momentum(run: Run) -> Tensor | None:
    found = [state.get("momentum_buffer") for state in run[1].state.values()]
    if not found or any(part is None for part in found):
        return None
    return torch.cat([part.flatten() for part in found])


def _alike(run: Run, other: Run) -> bool:
    """Whether two runs are at the same place, to the last bit."""
    momenta = _momentum(run), _momentum(other)
    return (
        torch.equal(_weights(run), _weights(other))
        and all(found is not None for found in momenta)
        and torch.equal(*momenta)  # type: ignore[arg-type]
        and torch.equal(run[2].get_state(), other[2].get_state())
    )


def _like(other: Run, kept: Run, later: Run) -> None:
    """The run that was taken up is where the snapshot was taken."""
    tied = (
        "what you keep is tied to the run: it has changed while the network learned on. Keep a copy, as copy.deepcopy"
        " makes one"
    )
    if not _close(_weights(other), _weights(kept)):
        if _close(_weights(other), _weights(later)):
            raise NotYet(tied)
        raise NotYet("the weights are not those of the snapshot")
    found, wanted, after = _momentum(other), _momentum(kept), _momentum(later)
    assert wanted is not None and after is not None
    if found is None:
        raise NotYet("the weights are back; the optimiser has forgotten its momentum")
    if not _close(found, wanted):
        raise NotYet(tied if _close(found, after) else "the optimiser's momentum is not that of the snapshot")
    if not torch.equal(other[2].get_state(), kept[2].get_state()):
        if torch.equal(other[2].get_state(), later[2].get_state()):
            raise NotYet(tied)
        raise NotYet("weights and momentum are back; the flicker goes on elsewhere than it stopped")
    if any(group["lr"] != 0.1 for group in other[1].param_groups):
        raise NotYet("the optimiser has another learning rate than before")


def _used_up(second: Run, kept: Run) -> str:
    """What the first run that went on has changed in the snapshot."""
    found, wanted = _momentum(second), _momentum(kept)
    assert wanted is not None
    if not _close(_weights(second), _weights(kept)):
        changed = "its weights are others"
    elif found is None or not _close(found, wanted):
        changed = "its momentum is another; an optimiser's load_state_dict makes no copy"
    else:
        changed = "its flicker is another"
    return (
        "the first run that goes on is right, and a second one, from the same snapshot, is not: "
        f"{changed}. The first run works on what is in the snapshot itself, and changes it"
    )


# --- the larger ones ------------------------------------------------------------------------------


def _first(good: Tensor) -> int:
    """How many steps are read up to the first that is good; all, if none is."""
    return int(good.nonzero()[0]) + 1 if good.any() else len(good)


# What one may write in place of "no more than the margin below the last one": words, and which steps are then good.
_OTHER_ENDS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "the margin is a difference of two accuracies, not a share of the last one": lambda curve, margin: (
        curve >= curve[-1] * (1 - margin)
    ),
    "compare with the last accuracy, not with the best one": lambda curve, margin: curve >= curve.max() - margin,
    "an accuracy that is higher than the last one is good enough, too": lambda curve, margin: (
        (curve - curve[-1]).abs() <= margin
    ),
    "an accuracy that is just `margin` below the last one is no more than that below it, so it is good enough": (
        lambda curve, margin: curve > curve[-1] - margin
    ),
}


@check.exercise(5)
def enough_steps(answer: Any, accuracy_by_step: Tensor) -> str:
    """The least number of steps that is good enough, on curves that were made up and on the chapter's own."""
    generator = torch.Generator().manual_seed(51)
    rising = 0.1 + 0.8 * (1 - torch.exp(-torch.arange(30) / 5.0))
    wavy = (rising + 0.15 * torch.rand(30, generator=generator)).clamp(max=1)
    early = torch.cat([torch.tensor([0.1, 0.2, 0.76]), torch.full((5,), 0.3), torch.linspace(0.4, 0.8, 12)])
    falling = torch.tensor([0.1, 0.3, 0.9, 0.85, 0.6, 0.65, 0.7])
    even = torch.tensor([0.125, 0.25, 0.5, 0.25, 0.625, 0.75])  # a step that is just the margin below, exactly
    curves = (
        (rising, 0.05),
        (wavy, 0.1),
        (early, 0.045),
        (0.5 * wavy, 0.07),
        (rising, 0.3),
        (wavy[:1], 0.1),
        (falling, 0.06),
        (even, 0.25),
    )
    answers = []
    for curve, margin in curves:
        answers.append(int(number("enough_steps(...)", ask("enough_steps", answer, curve, margin), whole=True)))
    right = [_first(curve >= curve[-1] - margin) for curve, margin in curves]
    if answers == right:
        own = accuracy_by_step.double()
        steps = _first(own >= own[-1] - 0.02)
        return f"With a margin of 0.02 this network needs {steps} of its {len(own)} steps."
    for one_off, words in ((-1, "one too few"), (1, "one too many")):
        if answers == [wanted + one_off for wanted in right]:
            raise NotYet(f"{words}: `curve[t]` is the accuracy after t + 1 steps")
    for words, good in _OTHER_ENDS.items():
        if answers == [_first(good(curve, margin)) for curve, margin in curves]:
            raise NotYet(words)
    (curve, margin), n_read = next(
        (of, n_read) for of, n_read, wanted in zip(curves, answers, right) if n_read != wanted
    )
    if not 1 <= n_read <= len(curve):
        raise NotYet(f"between 1 and {len(curve)} steps can be read of one of the curves, and yours is {n_read}")
    below = (curve[-1] - curve[n_read - 1]).item()
    if below <= margin:
        raise NotYet(
            f"on a curve with the margin {margin:g}, {n_read} steps are enough, and so are fewer: look for the first"
        )
    raise NotYet(
        f"after {n_read} step{'s' if n_read > 1 else ''} one of the curves is {below:.3f} below its end, and the"
        f" margin is {margin:g}: read more"
    )


@check.exercise(6)
def steady_answers(
    answer: Any, net: SpikingNet, shown: Tensor, shown_labels: Tensor, answers: Tensor, n_steps: int
) -> str:
    """The answers to images without flicker, image by image."""
    given = tensor("steady_answers", answer)
    n_images = len(shown)
    if given.shape == (n_images, 10):
        raise NotYet("steady_answers should be one label for each image; you have ten numbers for each")
    if given.numel() == 1 and n_images > 1:
        raise NotYet("steady_answers should be one label for each image, not an accuracy")
    if given.shape == (10,) != (n_images,):
        raise NotYet("steady_answers should be one label for each image; you have one number for each label")
    given = tensor("steady_answers", given.squeeze(1) if given.shape == (n_images, 1) else given, [n_images])
    if ((given < 0) | (given > 9) | (given != given.round())).any():
        raise NotYet("a label is one of 0 to 9")

    def run(frames: Tensor) -> list[Any]:
        with torch.no_grad():
            return net.run(frames)

    still = shown.flatten(1).expand(n_steps, -1, -1) / 2
    hidden, output = run(still)
    mean = output.states.mean(dim=0).cpu()
    if _same(given, mean):
        lost = (hidden.outputs.mean() / _flickering(net, shown, n_steps) - 1).item()
        right = (given == shown_labels.cpu()).double().mean().item()
        before = (answers == shown_labels).double().mean().item()
        return (
            f"Without flicker it reads {right:.1%}, with it {before:.1%}; the hidden layer puts out {abs(lost):.0%}"
            f" {'less' if lost < 0 else 'more'}."
        )
    whole = run(2 * still)[-1].states.mean(dim=0).cpu()
    mistakes: dict[str, Callable[[], bool]] = {
        "on average a flickering pixel is half as large as the pixel": lambda: _same(given, whole),
        "those are the answers with flicker": lambda: torch.equal(given, answers.cpu().double()),
        "the answer is read from the mean of the states, not from the last ones": lambda: _same(
            given, output.states[-1].cpu()
        ),
        # Exactly these: where no neuron fires, all ten means are 0, and any label would have the highest of them.
        "the answer is read from states; yours is read from outputs": lambda: torch.equal(
            given, output.outputs.mean(dim=0).argmax(dim=1).cpu().double()
        ),
        "layer 2 reads the outputs of layer 1, not its states": lambda: _same(
            given, run_second(net, hidden.states).mean(dim=0).cpu()
        ),
        "one frame is not enough: show it for `n_steps` steps": lambda: _same(
            given, run(still[:2])[-1].states.mean(dim=0).cpu()
        ),
        "those are the labels themselves": lambda: torch.equal(given, shown_labels.cpu().double()),
    }
    for words, holds in mistakes.items():
        if holds():
            raise NotYet(words)
    if set(given.tolist()) <= {0.0, 1.0} and n_images >= 20:
        raise NotYet("those say whether an answer is right, or have only two labels; the answers are wanted")
    differ = int((given != mean.argmax(dim=1)).sum())
    raise NotYet(
        f"{differ} of {n_images} answers are others: is the image halved, does layer 2 read layer 1's outputs, and is"
        " the answer the label with the highest mean state, over all steps?"
    )


def run_second(net: SpikingNet, frames: Tensor) -> Tensor:
    """The states of layer 2, for whatever is shown to it."""
    with torch.no_grad():
        states: Tensor = net.layers[1](frames)[0]
    return states


def _same(answers: Tensor, scores: Tensor) -> bool:
    """The answers of these scores; where two scores are as good as equal, either will do."""
    chosen = scores.double().gather(1, answers.long()[:, None]).squeeze(1)
    return bool((scores.double().amax(dim=1) - chosen <= 1e-4).all())


def _flickering(net: SpikingNet, shown: Tensor, n_steps: int) -> Tensor:
    with torch.no_grad():
        return net.record(shown, torch.Generator().manual_seed(60))[0].outputs.mean()


@check.exercise(7)
def accumulate(answer: Any) -> str:
    """The gradient of a batch in parts, against that of the whole, and never more than one part in memory."""
    generator = torch.Generator().manual_seed(70)
    layers = [SpikingLayer(20, 12, generator=generator), SpikingLayer(12, 10, generator=generator)]
    parameters = [p for layer in layers for p in layer.parameters()]
    frames, labels = 2 * torch.rand(15, 9, 20, generator=generator), torch.randint(10, (9,), generator=generator)
    seen: list[int] = []
    histories: list[weakref.ref[_Kept]] = []  # what the chain rule needs of the parts that were shown
    largest = len(labels)

    def forget() -> None:
        for parameter in parameters:
            parameter.grad = None

    def gradient() -> Tensor | None:
        if any(p.grad is None for p in parameters):
            return None
        return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).clone()

    def keep(value: Tensor) -> _Kept:
        kept = _Kept(value.detach())  # with its way back, the two would hold each other for ever
        histories.append(weakref.ref(kept))
        return kept

    def forbidden(*_: Any, **__: Any) -> None:
        if seen:
            raise NotYet("the gradients of the parts are to add up: none may be forgotten between them")

    def respond(part: Tensor) -> Tensor:
        if part.dim() != 3 or part.shape[0] != frames.shape[0] or part.shape[2] != frames.shape[2]:
            raise NotYet(
                f"respond was shown frames of the shape {list(part.shape)}; split `frames` along the examples, the"
                " second dimension: time comes first"
            )
        if part.shape[1] > largest:
            raise NotYet(
                f"what does not fit was shown at once: the largest part has {largest} examples, and respond saw"
                f" {part.shape[1]}"
            )
        if _alive(histories):
            raise NotYet(
                "the history of a part is still in memory when the next one is shown: go back through each part first,"
                " before the next, and keep nothing of it"
            )
        seen.append(part.shape[1])
        with torch.autograd.graph.saved_tensors_hooks(keep, _Kept.given_back):
            return F.log_softmax(layers[1](layers[0](part)[1])[0].mean(dim=0), dim=-1)

    for sizes in ([6, 2, 1], [3, 3, 1], [1, 8], [9], [2, 4]):
        n_examples = sum(sizes)
        forget()
        histories.clear()
        largest = n_examples
        F.nll_loss(respond(frames[:, :n_examples]), labels[:n_examples]).backward()
        wanted = gradient()
        assert wanted is not None
        forget()
        largest = max(sizes)
        seen.clear()
        histories.clear()
        given = frames[:, :n_examples].clone(), labels[:n_examples].clone()
        shown = given[0].clone(), given[1].clone(), list(sizes)
        with patch.object(nn.Module, "zero_grad", forbidden):
            call("accumulate", answer, respond, *shown)
        if not seen and gradient() is None:
            raise Undone("accumulate does nothing so far")
        if not torch.equal(shown[0], given[0]) or not torch.equal(shown[1], given[1]):
            raise NotYet("accumulate changes what it was given, in place")
        if not seen:
            raise NotYet("show the parts to the function `respond` that is given")
        found = gradient()
        if found is None:
            raise NotYet("it leaves no gradient in the layers: each part's loss has to go back through the network")
        if sorted(seen) != sorted(sizes):
            raise NotYet(f"for the sizes {sizes} respond saw parts of {seen} examples")
        _of_gradient(found, wanted, sizes)
    return "It costs the memory of the largest part only, and the time of the whole."


def _alive(histories: list[weakref.ref[_Kept]]) -> bool:
    if all(kept() is None for kept in histories):
        return False
    gc.collect()  # slow, and hardly ever needed: what only holds itself is nobody's
    return any(kept() is not None for kept in histories)


class _Kept:
    """A tensor that is in memory for the way back; it goes when nobody can go that way any more."""

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def given_back(self) -> Tensor:
        return self.value


def _of_gradient(found: Tensor, wanted: Tensor, sizes: list[int]) -> None:
    size = wanted.norm().item()
    off = (found - wanted).norm().item() / size
    if off < 1e-3:
        return
    ratio = (found @ wanted).item() / size**2
    straight = (found - ratio * wanted).norm().item() / size < 1e-3 * max(1, abs(ratio))
    told = f"for parts of {sizes} examples your gradient"
    if straight and ratio < 0:
        raise NotYet(f"{told} points uphill: the loss is the negative log-probability")
    if straight:
        raise NotYet(f"{told} has the right direction and is {ratio:.2f} times as long: divide once, by what?")
    raise NotYet(
        f"{told} has another direction (it is off by {off:.0%} of its size): every example has to count alike, in"
        " large parts and in small ones"
    )

"""The checks of the exercises in "Many machines"."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from snn_helpers.long.exercise import Check, NotYet, ask, function, number, tensor

check = Check()


@check.exercise(1)
def bytes_sent(answer: Any, gradient_bytes: float) -> str:
    """What each of 8 processes sends in 180 batches, in gradients a batch."""
    found = number("bytes_sent", answer, 0)
    a_batch = found / (180 * gradient_bytes)
    mistakes = {
        14.0: "each round sends a piece of the gradient, not the whole; and each process counts for itself",
        2.0: "that is the limit for very many processes, or a round too many in each pass",
        0.875: "in the ring there are two passes: one to add up, one to hand the sums round",
        1.0: "that is one gradient a batch, as with two processes; here there are eight",
        1.75 / 4: "those are numbers; each of them has four bytes",
        112.0: "that is what all send together, with whole gradients in place of pieces",
        1.75 / 180: "that is for one batch; there are 180",
        1.75 * 4: "each round sends a piece, not the whole; or is it that the gradient is in bytes already?",
        1.75 / 1e6: "that is in millions of bytes",
        1.75 / 1e3: "that is in thousands of bytes",
        1.75 / 2**20: "that is in mebibytes",
    }
    for value, words in mistakes.items():
        if abs(a_batch / value - 1) < 0.01:
            raise NotYet(words)
    if abs(a_batch / 1.75 - 1) > 0.006:
        more = "" if a_batch < 14 else ": each round sends a piece, not the whole"
        raise NotYet(f"your number is {a_batch:.3g} gradients a batch{more}; how many rounds are there, of what size?")
    return "With a thousand processes it would be a seventh more; what grows is the number of rounds."


@check.exercise(2)
def combine(answer: Any) -> str:
    """The gradient of a batch from those of its parts' means, for parts of several sizes."""
    generator = torch.Generator().manual_seed(20)
    for sizes in ([2, 8], [5, 5], [7, 1, 2], [30, 10, 20, 4]):
        images = torch.randn(sum(sizes), 6, generator=generator, dtype=torch.float64)
        parts = [part.mean(dim=0) for part in images.split(sizes)]
        given, told = [part.clone() for part in parts], list(sizes)
        found = tensor("combine(...)", ask("combine", partial(function("combine", answer), given, told)))
        if told != sizes or not all(map(torch.equal, given, parts)):
            raise NotYet("it changes what it was given, in place; whoever calls it still needs it. Make new tensors")
        if tuple(found.shape) == (len(sizes), 6):
            raise NotYet("it returns one gradient for each part; one is wanted, of all of them together")
        found = tensor("combine(...)", found, [6])
        right = images.mean(dim=0)
        if torch.allclose(found, right, rtol=1e-4, atol=1e-6):
            continue
        n, total = len(sizes), sum(sizes)
        mistakes = {
            "that is the plain mean: the parts differ in size": sum(parts) / n,
            "that is the sum of the parts' gradients; each is a mean already": sum(parts),
            "weighed by size, and not yet divided: by what?": total * right,
            "divide by the number of images, not by the number of parts": total * right / n,
            "the largest part should count most, and yours counts least": sum(g / k for g, k in zip(parts, sizes))
            / sum(1 / k for k in sizes),
            "each part is divided by its size again; its gradient is that of a mean already": sum(
                g / k for g, k in zip(parts, sizes)
            )
            / n,
            "the mean is taken once too often": right / n,
            "the sign: it is the gradient, not a step": -right,
            "the weights of the parts have to add up to 1": sum(g * (k / total) ** 2 for g, k in zip(parts, sizes)),
        }
        for words, mistake in mistakes.items():
            if torch.allclose(found, torch.as_tensor(mistake), rtol=1e-4, atol=1e-6):
                raise NotYet(words)
        share = (found @ right / right.square().sum()).item()
        if torch.allclose(found, share * right, rtol=1e-4, atol=1e-6):
            raise NotYet("the direction is right and the length is not: what is the sum divided by, for these parts?")
        raise NotYet(f"for parts of {', '.join(map(str, sizes))} images it is off: how much should each part count?")
    return (
        "The plain mean would give each image of a small part more say. `fit` cuts its parts and weighs them like that."
    )


@check.exercise(3)
def n_half(answer: Any, per_step: float, per_image: float, latency: float, bandwidth: float, size: float) -> str:
    """Up to how many processes the model shares 10,000 images with an efficiency of a half; `size` in bytes."""
    found = number("n_half", answer, 1, 4096, what="a number of processes")
    if found != round(found):
        raise NotYet(f"n_half should be a whole number of processes, and is {found:g}")

    def efficiency(p: int, latency: float = latency) -> float:
        exchange = 2 * (p - 1) * (latency + size / (p * bandwidth))
        return (per_step + 10_000 * per_image) / (per_step + 10_000 / p * per_image + exchange) / p

    p = round(found)
    largest = max(p for p in range(1, 4097) if efficiency(p) >= 0.5)
    gain = [p * efficiency(p) for p in range(1, 4097)]
    if p == largest:
        fewer = max(p for p in range(1, 4097) if efficiency(p, 10 * latency) >= 0.5)
        return f"With a latency ten times as long it would be {fewer} on this machine: every round costs one."
    if efficiency(p) < 0.5 and p == 1 + max(range(4096), key=gain.__getitem__):
        raise NotYet("that is where the training is fastest, and more than half of the time is wasted there: go down")
    if efficiency(p) < 0.5:
        raise NotYet(f"with {p} processes the efficiency is {efficiency(p):.1%}, below a half: go down")
    raise NotYet(f"with {p} processes the efficiency is {efficiency(p):.1%}, and one more is still good enough: go up")

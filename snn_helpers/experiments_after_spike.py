"""The measurements of chapter 07, one trial at a time: run live at a small size, recorded at full size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from .encoding import flicker
from .plasticity import (
    AfterCredit,
    AfterSpikeLayer,
    AfterSpikeNet,
    coincidence_shares,
    late_weights,
    pair_weights,
    spiking_layers,
    trace_after_credit,
    trace_credit,
)
from .training import evaluate, fit, pick_device

# What each network has for an after-spike, and how its weights decay.
VARIANTS: dict[str, dict[str, Any]] = {
    "none": {"balance": 0.0},
    "L2": {"balance": 0.0, "weight_decay": 0.01},
    "fixed": {"provoked": False},
    "provoked": {},
    "provoked, detached": {"detach": True},
}


def after_spike_trial(
    variant: str,
    seed: int,
    train: TensorDataset,
    test: TensorDataset,
    *,
    n_steps: int = 32,
    batch_size: int = 1000,
    learning_rates: Sequence[float] = (0.1, 0.05, 0.01),
    n_probe: int = 500,
    n_delays: int = 12,
    device: str | torch.device = "auto",
) -> dict[str, Any]:
    """Train 784-100-10 on digits with one of `VARIANTS` of the after-spike, and measure it; derived in chapter 07.

    Returns the variant and the seed, `test_accuracy`, `test_loss`, `seconds` of training, and,
    `before` and `after` it, what `probe` finds on the first `n_probe` test images.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(map(repr, VARIANTS))}, not {variant!r}")
    settings = dict(VARIANTS[variant])
    weight_decay = settings.pop("weight_decay", 0.0)
    device = pick_device(device)
    net = AfterSpikeNet(n_steps, generator=torch.Generator().manual_seed(seed), **settings).to(device)
    images, labels = (part[:n_probe].to(device) for part in test.tensors)
    frames = flicker(images.flatten(1), n_steps, torch.Generator().manual_seed(seed))
    net.train()
    with torch.no_grad():
        net.layers[0](frames)  # a first batch, from which the strengths of the after-spikes come
    before = probe(net, frames, labels, n_delays)
    history = fit(
        net,
        train,
        seed=seed,
        device=device,
        learning_rates=learning_rates,
        batch_size=batch_size,
        weight_decay=weight_decay,
        progress=False,
    )
    on_test = evaluate(net, test, seed=seed)
    return {
        "variant": variant,
        "seed": seed,
        "test_accuracy": on_test.accuracy,
        "test_loss": on_test.loss,
        "seconds": round(history.seconds, 2),
        "before": before,
        "after": probe(net, frames, labels, n_delays),
    }


def probe(net: AfterSpikeNet, frames: Tensor, labels: Tensor, n_delays: int) -> dict[str, Any]:
    """What makes the first layer's gradient on these examples, `[T, B, n_inputs]` and `[B]`; derived in chapter 07.

    - `rate`: the share of steps in which a neuron of the first layer fires;
    - `integral`: the sum of all that the layer hands out, for a sum of 1 of its spikes alone;
    - `counts`, `amounts`: the eight `coincidence_shares` within tau, flattened; for a network without
      after-spikes only, and `output_counts`, `output_amounts` for its last layer;
    - `window`: see `two_sided_window`.
    """
    found = trace_after_credit(net, frames, labels)
    first = spiking_layers(net)[0]
    assert isinstance(first, AfterSpikeLayer)
    with torch.no_grad():
        given = found.credit.outputs.sum()
        row: dict[str, Any] = {
            "rate": (found.credit.outputs > 0).float().mean().item(),
            "integral": (first(frames)[1].sum() / given).item() if given > 0 else 1.0,
        }
        if not first.strength.any():
            horizon = _tau(first.decay)
            for name, credit in zip(("", "output_"), trace_credit(net, frames, labels)):
                for kind, amounts in (("counts", False), ("amounts", True)):
                    shares = coincidence_shares(credit, first.decay, horizon, amounts)
                    row[name + kind] = _rounded(shares.flatten())
        row["window"] = two_sided_window(found, first.decay, first.after_decay, n_delays)
    return row


def two_sided_window(found: AfterCredit, decay: float, after_decay: float, n_delays: int) -> dict[str, list[float]]:
    """What a positive input gets from a spike at a delay from it, on both sides; derived in chapter 07.

    The mean descent direction of a pair, per unit of input, and per mean size of the learning
    signal at a spike. `wanted`: the loss would fall if the spike were larger; `unwanted`: it
    would rise; `all`: both. Each for the delays `t_post - t_pre` from `-n_delays` to `n_delays`.
    `late_weakened`: of the late pairs that change the weight at all, the share that weakens it, in
    the same three cases.
    """
    credit, handed, late = found
    fired = credit.outputs > 0
    arriving = credit.inputs.relu().sum(dim=2, keepdim=True)  # [T, B, 1]
    size = handed[fired].abs().mean().clamp(min=1e-30)
    causal = list(pair_weights(credit.signals, credit.slopes, decay, n_delays + 1))
    after = list(late_weights(credit.outputs, late, after_decay, n_delays))
    curves: dict[str, list[float]] = {"late_weakened": []}
    for name, kind in (("wanted", handed < 0), ("unwanted", handed > 0), ("all", torch.ones_like(fired))):
        spikes = (fired & kind).to(handed.dtype)
        # The weight of each pair, and its input; the latest input first, then the earlier ones.
        late_half = [(w, spikes[: len(w)] * arriving[-len(w) :]) for w in reversed(after)]
        pairs = late_half + [(w, spikes[-len(w) :] * arriving[: len(w)]) for w in causal]
        curves[name] = _rounded([-((w * met).sum() / met.sum().clamp(min=1e-30) / size).item() for w, met in pairs])
        weakened = sum((met * (w > 0)).sum().item() for w, met in late_half)
        changed = sum((met * (w != 0)).sum().item() for w, met in late_half)
        curves["late_weakened"].append(weakened / changed if changed else 0.0)
    return curves


def _tau(decay: float) -> int:
    """The whole steps within the time constant, in which a trace falls to 1/e."""
    return int(-1 / torch.tensor(decay, dtype=torch.float64).log().item())


def _rounded(values: Tensor | list[float]) -> list[float]:
    return [float(f"{float(value):.4g}") + 0.0 for value in values]  # + 0.0: no minus zeros

"""What a gradient step is made of, and how near simple rules of plasticity come to it; derived in chapter 06.

A trial trains a network by backpropagation and stops now and then to ask what a gradient step
would do to each weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import TensorDataset

from snn_helpers import SpikingNet
from snn_helpers.devices import pick_device
from snn_helpers.long.autocast import without_autocast
from snn_helpers.long.checks import real
from snn_helpers.long.examples import stored
from snn_helpers.long.plain import significant
from snn_helpers.long.plain_layers import plain_layers
from snn_helpers.long.recording import Record, whole_mnist
from snn_helpers.long.seeds import seeded
from snn_helpers.long.tasks import digits_task, patterns_task
from snn_helpers.plasticity import Credit, input_credit, pair_stdp, pair_weights, spike_trace, trace_credit


def plasticity_trial(
    task: str,
    seed: int,
    train: TensorDataset | None = None,
    *,
    reset: str = "scale",
    n_steps: int = 128,
    batch_size: int = 100,
    n_hidden: int = 100,
    probe_at: Sequence[int] = (0, 10, 30, 100, 200, 300),
    n_probe: int = 200,
    n_delays: int = 16,
    learning_rate: float = 0.1,
    device: str | torch.device = "auto",
) -> dict[str, Any]:
    """Train on `"digits"` or `"patterns"`, and probe the gradient's plasticity on the way; recorded for chapter 06.

    SGD with momentum 0.5, for as many updates as `probe_at` ends with; the learning rate falls to
    a half after one third of them and to a tenth after two.

    Returns `probes`, a row for each number in `probe_at`: `accuracy` and `loss` on the `n_probe`
    examples of the probe, which are not trained on again; each layer's firing rate; `raised`, the
    share of learning signals that ask for more; `truncated`, `cosines`, `by_answer` (the hidden
    layer's `hebbian_share`) and, at the first and the last probe, `windows`: see these functions.
    """
    device = pick_device(device)
    generator = seeded(seed)
    if task == "digits":
        if train is None:
            raise ValueError("the task 'digits' needs train, a set of digits")
        draw, n_inputs = digits_task(train, n_steps, device), stored(train)[0][0].numel()
    elif task == "patterns":
        n_inputs = 200
        draw = patterns_task(n_steps, device, generator, n_inputs)
    else:
        raise ValueError(f"task must be 'digits' or 'patterns', not {task!r}")
    net = SpikingNet(n_steps, sizes=(n_inputs, n_hidden, 10), reset=reset, generator=generator).to(device)
    frames, labels = draw(n_probe, generator)
    optimizer = torch.optim.SGD(net.parameters(), lr=learning_rate, momentum=0.5)
    probes = []
    for update in range(probe_at[-1] + 1):
        if update in probe_at:
            edge = update in (probe_at[0], probe_at[-1])
            row = probe(net, frames, labels, generator, n_delays if edge else 0)
            probes.append({"update": update, **row})
        if update < probe_at[-1]:
            third = min(2, 3 * update // probe_at[-1])
            optimizer.param_groups[0]["lr"] = learning_rate * (1.0, 0.5, 0.1)[third]
            batch_frames, batch_labels = draw(batch_size, generator)
            optimizer.zero_grad()
            F.nll_loss(answer(net, batch_frames), batch_labels).backward()
            optimizer.step()
    return {"probes": probes}


def answer(net: SpikingNet, frames: Tensor) -> Tensor:
    """Log-probabilities `[B, n_classes]` for frames `[T, B, n_inputs]`."""
    return F.log_softmax(net.read_out(net.run(frames)), dim=-1)


@without_autocast
@torch.no_grad()
def probe(
    net: SpikingNet, frames: Tensor, labels: Tensor, generator: torch.Generator, n_delays: int = 0
) -> dict[str, Any]:
    """What a gradient step on these examples would be made of; `n_delays` 0 leaves the windows out."""
    layers = plain_layers(net, "probe")
    if len(layers) != 2:
        raise ValueError(f"probe is for one hidden layer and a last layer, not for {len(layers)} layers")
    decays = [layer.decay for layer in layers]
    log_probs = answer(net, frames)
    factors = trace_credit(net, frames, labels)
    # Each example's partner in the controls: one with another label, as long as no label has half of them.
    by_label = labels.argsort(stable=True)
    others = torch.empty_like(by_label)
    others[by_label] = by_label.roll(len(labels) // 2)
    wrong = trace_credit(net, frames, labels[others])
    row: dict[str, Any] = {
        "accuracy": (log_probs.argmax(dim=1) == labels).float().mean().item(),
        "loss": F.nll_loss(log_probs, labels).item(),
        "rates": [(layer.outputs > 0).float().mean().item() for layer in factors],
        "raised": [((f.signals < 0).sum() / (f.signals != 0).sum().clamp(min=1)).item() for f in factors],
        "truncated": truncated(net, factors, decays[0], generator),
        "cosines": [cosines(f, w.signals, d, others, generator) for f, w, d in zip(factors, wrong, decays)],
    }
    right = log_probs.argmax(dim=1) == labels
    row["by_answer"] = {
        name: hebbian_share(factors[0], chosen, decays[0])
        for name, chosen in (("right", right), ("wrong", ~right))
        if chosen.sum() >= 5
    }
    if n_delays:
        row["windows"] = [windows(layer, d, n_delays, others, generator) for layer, d in zip(factors, decays)]
    rounded: dict[str, Any] = significant(row, 3)
    return rounded


def truncated(net: SpikingNet, factors: list[Credit], decay: float, generator: torch.Generator) -> dict[str, float]:
    """Cosine of the hidden layer's exact gradient with what remains of it without the future; derived in chapter 06.

    `no_future`: the exact eligibility, but the learning signal leaves out what a spike does to
    the last layer's later steps. `no_future_no_reset`: and the eligibility is the plain trace of
    the input. `random_feedback`: the exact eligibility times the errors at that moment, sent down
    through fixed random weights.
    """
    hidden, last = factors
    weights = plain_layers(net, "truncated")[1].linear.weight
    random = torch.randn(weights.shape, generator=generator, device="cpu").to(weights)

    def sent_down(errors: Tensor, through: Tensor) -> Tensor:
        signals = torch.zeros_like(hidden.signals)
        signals[:-1] = (errors @ through)[1:]
        return signals * (hidden.outputs > 0)

    now, plain = sent_down(last.signals, weights), torch.ones_like(hidden.slopes)
    exact = gradient_step(hidden, decay)
    return {
        "no_future": _cosine(exact, gradient_step(hidden._replace(signals=now), decay)),
        "no_future_no_reset": _cosine(exact, gradient_step(hidden._replace(signals=now, slopes=plain), decay)),
        "random_feedback": _cosine(
            exact, gradient_step(hidden._replace(signals=sent_down(last.signals, random)), decay)
        ),
    }


def gradient_step(factors: Credit, decay: float) -> Tensor:
    """The direction of steepest descent for the layer's weights, `[n_neurons, n_inputs]`."""
    return -_pairs(input_credit(factors.signals, factors.slopes, decay), factors.inputs)


def cosines(
    factors: Credit, wrong_signals: Tensor, decay: float, others: Tensor, generator: torch.Generator
) -> dict[str, dict[str, float]]:
    """Cosine of the exact step with each rule's step, for `raw` and for `centred` inputs; recorded for chapter 06.

    Centred: the mean of each input over all steps and examples is taken off. What it adds to a
    step is the same for all examples: the step of the biases, in the shape of the mean image.
    """
    found = {}
    for name, offset in (("raw", 0.0), ("centred", factors.inputs.mean(dim=(0, 1)))):
        these = factors._replace(inputs=factors.inputs - offset)
        exact = gradient_step(these, decay)
        steps = rule_steps(these, wrong_signals, decay, others, generator)
        found[name] = {rule: _cosine(exact, step) for rule, step in steps.items()}
    return found


def rule_steps(
    factors: Credit, wrong_signals: Tensor, decay: float, others: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """The step of each rule, summed over the examples; derived in chapter 06.

    The rules know events, not amplitudes, of their own layer's spikes. `error` is one number for
    each example and neuron: the mean of minus the learning signal, over the steps that have one.
    `pre first` weighs a pair by `decay ** delay`, the same step included; `post first` is its
    mirror image, the same step left out; `STDP` is the first minus the second, in the times at
    which spikes are handed out. The last three rules are controls.
    """
    inputs, fired = factors.inputs, (factors.outputs > 0).to(factors.inputs.dtype)
    trace, stdp = spike_trace(inputs, decay), _signed_stdp
    taught = fired * _mean_error(factors.signals)
    return {
        "Hebb": torch.einsum("bj,bi->ji", fired.mean(dim=0), inputs.mean(dim=0)),
        "STDP": stdp(inputs, fired, decay),
        "error x rates": torch.einsum("bj,bi->ji", taught.mean(dim=0), inputs.mean(dim=0)),
        "error x pre first": _pairs(taught, trace),
        "error x post first": _pairs(spike_trace(taught, decay) - taught, inputs),
        "error x STDP": stdp(inputs, taught, decay),
        "signal x trace": _pairs(-factors.signals, trace),
        "wrong labels": _pairs(fired * _mean_error(wrong_signals), trace),
        "other inputs": _pairs(taught, trace[:, others]),
        "random": torch.randn(fired.shape[2], inputs.shape[2], generator=generator, device="cpu").to(inputs),
    }


def hebbian_share(factors: Credit, chosen: Tensor, decay: float) -> dict[str, float]:
    """How Hebbian the step of some examples is, for centred inputs; recorded for chapter 06.

    `chosen` `[B]` is true for these examples. `Hebb`, `STDP`: the step's cosine with these rules' steps. `preference`:
    -1 to 1, whether the error asks for more of what the neuron does more than in its mean over all examples (1), or for
    less (-1).
    """
    usual = (factors.outputs > 0).to(factors.inputs.dtype).mean(dim=(0, 1))
    inputs = factors.inputs[:, chosen] - factors.inputs.mean(dim=(0, 1))
    these = Credit(inputs, *(part[:, chosen] for part in factors[1:]))
    fired, error = (these.outputs > 0).to(inputs.dtype), _mean_error(these.signals)
    exact, liking = gradient_step(these, decay), fired.mean(dim=0) - usual
    return {
        "n": float(chosen.sum()),
        "Hebb": _cosine(exact, torch.einsum("bj,bi->ji", fired.mean(dim=0), inputs.mean(dim=0))),
        "STDP": _cosine(exact, _signed_stdp(inputs, fired, decay)),
        "preference": ((error * liking).sum() / (error * liking).abs().sum().clamp(min=1e-30)).item(),
    }


def windows(
    factors: Credit, decay: float, n_delays: int, others: Tensor, generator: torch.Generator
) -> dict[str, list[float]]:
    """What the delay of a pre/post pair does to its part in the gradient step; derived in chapter 06.

    For delays 0, 1, ... `n_delays - 1`:
    - `kernel`: what is left of the learning signal when it reaches the input, in the mean over all
      signals, weighted by their size; `kernel_shuffled`: the same, signals at random times.
    - `raised_by_positive`: the change by a pair whose signal asks for more (it is below zero) and
      whose input is above zero, per unit of input and per mean absolute signal; `lowered`, `negative`:
      the signal asks for less, the input is below zero.
    - `share`: the part of the whole step, for centred inputs, that comes from pairs of this delay:
      its projection on the step; all delays together make 1. `share_other_inputs` and
      `share_shuffled` are the controls: inputs of other examples, signals at random times.
    For delays from `-n_delays` to `n_delays`:
    - `credit_raised`, `credit_lowered`: what an input gets in all, by its delay to a spike of the
      neuron whose signal asks for more, or less, per mean absolute signal; `..._shuffled` around
      random times; `signal_raised`, ...: the learning signal itself around that spike.
    These only for a hidden layer, whose signals come at its own spikes. For the last layer, where
    they come at every step, `kernel_at_spikes` leaves out the others, and `share_at_spikes` is the
    part of the step that its spikes account for.
    """
    inputs, outputs, slopes, signals = factors
    n_delays = min(n_delays, len(signals) - 1)
    order = torch.rand(signals.shape, generator=generator, device="cpu").argsort(dim=0).to(signals.device)
    shuffled = signals.gather(0, order)
    size = signals.abs().sum() / (signals != 0).sum().clamp(min=1)
    found: dict[str, list[float]] = {}

    for name, which in (("kernel", signals), ("kernel_shuffled", shuffled)):
        weights = pair_weights(which.abs(), slopes, decay, n_delays)
        found[name] = [(w.sum() / which.abs().sum().clamp(min=1e-30)).item() for w in weights]

    for kind, part in (("positive", inputs.clamp(min=0)), ("negative", inputs.clamp(max=0))):
        total = part.sum(dim=2, keepdim=True)  # [T, B, 1]
        if not total.any():
            continue
        for sign, which in (("raised", signals.clamp(max=0)), ("lowered", signals.clamp(min=0))):
            curve = []
            for delay, w in enumerate(pair_weights(which, slopes, decay, n_delays)):
                met = total[: len(w)]
                pairs = (met.abs() * (which[delay:] != 0)).sum()
                curve.append((-(w * met).sum() / pairs.clamp(min=1e-30) / size).item())
            found[f"{sign}_by_{kind}"] = curve

    centred = factors._replace(inputs=inputs - inputs.mean(dim=(0, 1)))
    step = gradient_step(centred, decay)
    for name, which, shown in (
        ("share", signals, centred.inputs),
        ("share_other_inputs", signals, centred.inputs[:, others]),
        ("share_shuffled", shuffled, centred.inputs),
    ):
        changes = (-_pairs(w, shown[: len(w)]) for w in pair_weights(which, slopes, decay, n_delays))
        found[name] = [((change * step).sum() / step.square().sum()).item() for change in changes]

    at_spikes = signals * (outputs > 0)
    if torch.equal(at_spikes, signals):
        credit = input_credit(signals, slopes, decay)
        for name, at in (("", signals), ("_shuffled", shuffled)):
            for sign, spikes in (("raised", at.clamp(max=0)), ("lowered", at.clamp(min=0))):
                found[f"credit_{sign}{name}"] = triggered(-credit, spikes.abs(), n_delays)
                found[f"signal_{sign}{name}"] = triggered(-signals, spikes.abs(), n_delays)
    else:
        weights = pair_weights(at_spikes.abs(), slopes, decay, n_delays)
        found["kernel_at_spikes"] = [(w.sum() / at_spikes.abs().sum().clamp(min=1e-30)).item() for w in weights]
        part_of_step = gradient_step(centred._replace(signals=at_spikes), decay)
        found["share_at_spikes"] = [((part_of_step * step).sum() / step.square().sum()).item()]
    return found


def triggered(values: Tensor, sizes: Tensor, n_delays: int) -> list[float]:
    """The sum of `values[t - d]` over the t where `sizes` is not zero, divided by the sum of the sizes there.

    For d from `-n_delays` to `n_delays`; both `[T, B, n]`. Times outside the recording are left out.
    """
    n_steps, means = len(values), []
    for delay in range(-n_delays, n_delays + 1):
        here = sizes[max(0, delay) : n_steps + min(0, delay)]
        there = values[max(0, -delay) : n_steps - max(0, delay)]
        means.append(((there * (here != 0)).sum() / here.sum().clamp(min=1e-30)).item())
    return means


def _pairs(post: Tensor, pre: Tensor) -> Tensor:
    return torch.einsum("tbj,tbi->ji", post, pre)


def _mean_error(signals: Tensor) -> Tensor:
    return -signals.sum(dim=0) / (signals != 0).sum(dim=0).clamp(min=1)


def _signed_stdp(pre: Tensor, post: Tensor, decay: float) -> Tensor:
    """`pair_stdp` with both sides equal, for values of either sign: it is linear in each of its two trains."""
    tau = -1 / math.log(_fading(decay))
    handed_out = torch.zeros_like(post)
    handed_out[1:] = post[:-1]
    change = torch.zeros(post.shape[2], pre.shape[2], dtype=pre.dtype, device=pre.device)
    for s in (1, -1):
        for r in (1, -1):
            one, other = (s * pre).clamp(min=0), (r * handed_out).clamp(min=0)
            if one.any() and other.any():
                change += s * r * pair_stdp(one, other, 1.0, 1.0, tau, tau)
    return change


def _fading(decay: float) -> float:
    if not 0 < real("decay", decay) < 1:
        raise ValueError(f"decay must lie between 0 and 1, both excluded, to have a time constant, not {decay}")
    return decay


def _cosine(one: Tensor, other: Tensor) -> float:
    cosine: float = ((one * other).sum() / (one.norm() * other.norm()).clamp(min=1e-30)).item()
    return cosine


# --- The records ----------------------------------------------------------------------------------


def measure_plasticity(**settings: Any) -> dict[str, Any]:
    """As `plasticity_trial`, its digits those of the whole of MNIST."""
    return plasticity_trial(train=whole_mnist()[0] if settings["task"] == "digits" else None, **settings)


RECORDS: dict[str, Record] = {
    "08_plasticity": Record(
        "What gradient steps are made of, in training: 784-100-10 on digits, 128 steps, and 200-100-10 on ten"
        " patterns told apart by time alone, 64 steps; 300 updates of 100 examples, probed on 200",
        measure_plasticity,
        [
            *({"task": "patterns", "seed": seed, "n_steps": 64} for seed in range(5)),
            *(
                {"task": "digits", "seed": seed, "reset": reset}
                for seed in range(5)
                for reset in ("scale", "discharge")
            ),
        ],
    ),
}

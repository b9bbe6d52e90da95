"""What a gradient step is made of, and how near rules of plasticity come to it; derived in chapter 08.

A trial trains a network by backpropagation and stops now and then to ask what a gradient step would do to each
weight. The gradient is autograd's: the spikes are held in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import TensorDataset

from snn_helpers import MLP, SpikingLayer, SpikingNet
from snn_helpers.devices import pick_device
from snn_helpers.long.autocast import without_autocast
from snn_helpers.long.checks import one_of
from snn_helpers.long.examples import stored
from snn_helpers.long.plain import significant
from snn_helpers.long.plain_layers import plain_layers
from snn_helpers.long.recording import Record, whole_mnist
from snn_helpers.long.seeds import seeded
from snn_helpers.long.tasks import digits_task, falling_rate, patterns_task
from snn_helpers.neurons import Neuron
from snn_helpers.plasticity import Credit, input_credit, pair_weights, reset_slope, spike_trace, trace_credit
from snn_helpers.statistics import decide, mean_and_interval, verdict

TASKS = ("patterns", "free", "digits")

# --- A network of binary spikes -------------------------------------------------------------------

OUT_OF_REACH = 1e9  # the threshold of a layer that adds up and leaks, and never fires


def surrogate(distance: Tensor, slope: float) -> Tensor:
    """The fast sigmoid's derivative, `1 / (1 + slope * |distance|)**2`: 1 at the threshold."""
    return (1 + slope * distance.abs()).pow(-2)


class SurrogateLayer(SpikingLayer):
    """A layer whose spikes are 0 or 1; backwards `surrogate` stands for their derivative, and the reset has none."""

    slope = 10.0

    def step(self, current: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the layer's neurons, `(spike, state)`."""
        charge = current + self.decay * state
        distance = charge - self.threshold
        spike = (distance > 0).to(charge.dtype)
        soft = distance / (1 + self.slope * distance.abs())  # its derivative is the surrogate
        return spike + (soft - soft.detach()), self.neuron.reset_where(spike, charge)


class SurrogateNet(SpikingNet):
    """`SpikingNet` with a hidden layer of binary spikes, and a last layer that never fires; recorded for chapter 08."""

    def make_layer(
        self, n_inputs: int, n_neurons: int, neuron: Neuron, generator: torch.Generator | None, is_last: bool
    ) -> SpikingLayer:
        """The hidden layer fires in ones; the last one adds up."""
        kind, threshold = (SpikingLayer, OUT_OF_REACH) if is_last else (SurrogateLayer, neuron.threshold)
        return kind(n_inputs, n_neurons, neuron.decay, threshold, neuron.penalty, neuron.reset, generator)

    @property
    def both_layers(self) -> list[SpikingLayer]:
        """The hidden layer and the last one."""
        return [layer for layer in self.layers if isinstance(layer, SpikingLayer)]

    @without_autocast
    @torch.no_grad()
    def credit(self, frames: Tensor, labels: Tensor) -> list[Credit]:
        """As `trace_credit`: the factors of the gradient in which `surrogate` stands for the spikes' derivative."""
        hidden, last = self.both_layers
        charges: list[Tensor] = []
        below, above = self.run(frames)
        states = below.states
        # The charge that a spike was made of: what arrives, and what is left of the state handed out in that step.
        for current, state in zip(hidden.currents(frames)[:-1], states[:-1]):
            charges.append(current + hidden.decay * state)
        near = surrogate(torch.stack(charges) - hidden.threshold, SurrogateLayer.slope)
        n_steps, errors = len(frames), self.read_out([below, above]).softmax(dim=-1)
        errors = errors - F.one_hot(labels, errors.shape[1])
        read = torch.arange(1, n_steps, device=errors.device) >= self.begin_eval
        shares = read.to(errors.dtype) / (n_steps - self.begin_eval) / len(labels)
        at_last = shares[:, None, None] * errors
        plain = torch.ones_like(above.outputs[1:])
        signals = torch.zeros_like(near)
        signals[:-1] = (input_credit(at_last, plain, last.decay) @ last.linear.weight)[1:]
        slopes = reset_slope(below.outputs[1:], hidden.threshold, hidden.penalty, hidden.reset)
        return [
            Credit(frames[:-1], below.outputs[1:], slopes, signals * near),
            Credit(below.outputs[:-1], above.outputs[1:], plain, at_last),
        ]


# --- The trials -----------------------------------------------------------------------------------


def plasticity_trial(
    task: str,
    seed: int,
    train: TensorDataset | None = None,
    *,
    reset: str = "scale",
    decay: float = 0.9,
    threshold: float = 1.0,
    penalty: float = 1.5,
    binary: bool = False,
    n_steps: int = 128,
    batch_size: int = 100,
    n_hidden: int = 100,
    probe_at: Sequence[int] = (0, 10, 100, 300),
    n_probe: int = 200,
    n_delays: int = 8,
    learning_rate: float = 0.1,
    device: str | torch.device = "auto",
) -> dict[str, Any]:
    """Train on one of `TASKS` and probe the gradient's plasticity on the way; derived in chapter 08.

    SGD with momentum 0.5, for as many updates as `probe_at` ends with; the learning rate falls to
    a half after one third of them and to a tenth after two. `binary`: a `SurrogateNet`.

    Returns `probes`, a row for each number in `probe_at`: what `probe` finds on `n_probe` examples, which are not
    trained on. The rows of the first and the last probe hold windows, too.
    """
    one_of("task", task, TASKS)
    device = pick_device(device)
    generator = seeded(seed)
    if task == "digits":
        if train is None:
            raise ValueError("the task 'digits' needs train, a set of digits")
        draw, n_inputs = digits_task(train, n_steps, device), stored(train)[0][0].numel()
    else:
        n_inputs = 200
        draw = patterns_task(n_steps, device, generator, n_inputs, free=task == "free")
    kind = SurrogateNet if binary else SpikingNet
    net = kind(n_steps, 0, (n_inputs, n_hidden, 10), decay, threshold, penalty, reset, generator).to(device)
    frames, labels = draw(n_probe, generator)
    optimizer = torch.optim.SGD(net.parameters(), lr=learning_rate, momentum=0.5)
    probes = []
    for update in range(probe_at[-1] + 1):
        if update in probe_at:
            edge = update in (probe_at[0], probe_at[-1])
            row = probe(net, frames, labels, generator, n_delays if edge else 0)
            if update == probe_at[0]:  # of the beginning less need be kept
                row["windows"] = [{name: each[name] for name in BEFORE} for each in row.get("windows", [])]
            probes.append({"update": update, **row})
        if update < probe_at[-1]:
            optimizer.param_groups[0]["lr"] = falling_rate(learning_rate, update, probe_at[-1])
            batch_frames, batch_labels = draw(batch_size, generator)
            optimizer.zero_grad()
            F.nll_loss(answer(net, batch_frames), batch_labels).backward()
            optimizer.step()
    return {"probes": probes}


def static_trial(
    seed: int,
    train: TensorDataset,
    *,
    n_updates: int = 300,
    batch_size: int = 100,
    n_probe: int = 200,
    learning_rate: float = 0.1,
    device: str | torch.device = "auto",
) -> dict[str, Any]:
    """The same cosines in a network without time or spikes, 784-100-10 with ReLU; recorded for chapter 08.

    A hidden unit 'fires' where its output is above 0. Trained as in `plasticity_trial`; returns `probes`, before and
    after training, each with `accuracy`, `loss` and the hidden layer's `cosines`.
    """
    device, generator = pick_device(device), seeded(seed)
    draw = digits_task(train, 1, device)
    net = MLP((stored(train)[0][0].numel(), 100, 10), generator=generator).to(device)
    images, labels = draw(n_probe, generator)
    optimizer = torch.optim.SGD(net.parameters(), lr=learning_rate, momentum=0.5)
    probes = []
    for update in range(n_updates + 1):
        if update in (0, n_updates):
            probes.append({"update": update, **_probe_static(net, images, labels, generator)})
        if update < n_updates:
            optimizer.param_groups[0]["lr"] = falling_rate(learning_rate, update, n_updates)
            batch, batch_labels = draw(batch_size, generator)
            optimizer.zero_grad()
            F.nll_loss(net(batch[0]), batch_labels).backward()
            optimizer.step()
    return {"probes": probes}


@without_autocast
@torch.no_grad()
def _probe_static(net: MLP, images: Tensor, labels: Tensor, generator: torch.Generator) -> dict[str, Any]:
    """`images` `[1, B, n_pixels]`: one step of time."""

    def factors(labels: Tensor) -> Credit:
        hidden = torch.relu(net.layers[0](images))
        errors = (net.layers[1](hidden).softmax(dim=-1) - F.one_hot(labels, 10)) / len(labels)
        return Credit(images, hidden, torch.ones_like(hidden), errors @ net.layers[1].weight * (hidden > 0))

    log_probs = net(images[0])
    controls = Controls.drawn(log_probs, labels, generator)
    found = cosines(factors(labels), factors(controls.permuted).signals, 0.9, 0.9, controls, generator)
    row: dict[str, Any] = {
        "accuracy": (log_probs.argmax(dim=1) == labels).float().mean().item(),
        "loss": F.nll_loss(log_probs, labels).item(),
        "cosines": [found],
    }
    rounded: dict[str, Any] = significant(row, 3)
    return rounded


def answer(net: SpikingNet, frames: Tensor) -> Tensor:
    """Log-probabilities `[B, n_classes]` for frames `[T, B, n_inputs]`."""
    return F.log_softmax(net.read_out(net.run(frames)), dim=-1)


def _factors(net: SpikingNet, frames: Tensor, labels: Tensor) -> list[Credit]:
    return net.credit(frames, labels) if isinstance(net, SurrogateNet) else trace_credit(net, frames, labels)


class Controls(NamedTuple):
    """What the nulls put in the place of the truth; each `[B]`.

    `others`: each example's partner, one with another label as long as no label has half of them. `permuted`: the
    labels in a random order. `rewards`: one number for each example, how much lower its loss is than the mean.
    `right`: 1 or 0 for a right answer, its mean taken off. `shuffle`: a random order of the examples.
    """

    others: Tensor
    permuted: Tensor
    rewards: Tensor
    right: Tensor
    shuffle: Tensor

    @classmethod
    def drawn(cls, log_probs: Tensor, labels: Tensor, generator: torch.Generator) -> Controls:
        """The controls of these examples, from their answers and labels."""
        by_label = labels.argsort(stable=True)
        others = torch.empty_like(by_label)
        others[by_label] = by_label.roll(len(labels) // 2)
        order = torch.randperm(len(labels), generator=generator, device="cpu").to(labels.device)
        gained = log_probs.gather(1, labels[:, None])[:, 0]
        right = (log_probs.argmax(dim=1) == labels).to(log_probs.dtype)
        return cls(others, labels[order], gained - gained.mean(), right - right.mean(), order)


@without_autocast
@torch.no_grad()
def probe(
    net: SpikingNet, frames: Tensor, labels: Tensor, generator: torch.Generator, n_delays: int = 0
) -> dict[str, Any]:
    """What a gradient step on these examples would be made of; recorded for chapter 08.

    `accuracy`, `loss`, and `accuracy_means_off`, the accuracy once the mean of each class is taken off the
    log-probabilities; each layer's firing rate in `rates`; `raised`, the share of learning signals that ask for more;
    for the hidden layer `by_answer` (`hebbian_share`) and `cosines`, a list of it alone.

    With `n_delays` above 0: `share_at_spikes`, the part of the last layer's step that its spikes account for; and of
    the hidden layer `control` (`positive_control`), `halves`, `windows` and, for graded spikes, `truncated`: see these
    functions.
    """
    layers = net.both_layers if isinstance(net, SurrogateNet) else plain_layers(net, "probe")
    if len(layers) != 2:
        raise ValueError(f"probe is for one hidden layer and a last layer, not for {len(layers)} layers")
    decays = [layer.decay for layer in layers]
    # Rules need a window; a neuron that forgets at once is compared with that of the others.
    tau_decay = decays[0] if decays[0] > 0 else 0.9
    log_probs = answer(net, frames)
    controls = Controls.drawn(log_probs, labels, generator)
    factors, permuted = (_factors(net, frames, given) for given in (labels, controls.permuted))
    right = log_probs.argmax(dim=1) == labels
    row: dict[str, Any] = {
        "accuracy": right.float().mean().item(),
        "accuracy_means_off": ((log_probs - log_probs.mean(dim=0)).argmax(dim=1) == labels).float().mean().item(),
        "loss": F.nll_loss(log_probs, labels).item(),
        "rates": [(layer.outputs > 0).float().mean().item() for layer in factors],
        "raised": [((f.signals < 0).sum() / (f.signals != 0).sum().clamp(min=1)).item() for f in factors],
        "cosines": [cosines(factors[0], permuted[0].signals, decays[0], tau_decay, controls, generator)],
    }
    hidden = factors[0]
    row["by_answer"] = {
        name: hebbian_share(hidden, chosen, decays[0], tau_decay)
        for name, chosen in (("right", right), ("wrong", ~right))
        if chosen.sum() >= 5
    }
    if n_delays:
        if not isinstance(net, SurrogateNet):
            row["truncated"] = truncated(net, factors, decays[0], generator)
        row["share_at_spikes"] = share_at_spikes(factors[1], decays[1])
        row["control"] = positive_control(hidden, tau_decay, generator)
        row["halves"] = halves(hidden, decays[0], tau_decay)
        row["windows"] = [windows(hidden, decays[0], n_delays, generator)]
    rounded: dict[str, Any] = significant(row, 3)
    return rounded


def truncated(net: SpikingNet, factors: list[Credit], decay: float, generator: torch.Generator) -> dict[str, float]:
    """Cosine of the hidden layer's exact gradient with what remains of it without the future; recorded for chapter 10.

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


# --- Rules of plasticity, and what they must beat ---------------------------------------------------


def gradient_step(factors: Credit, decay: float) -> Tensor:
    """The direction of steepest descent for the layer's weights, `[n_neurons, n_inputs]`."""
    return -_pairs(input_credit(factors.signals, factors.slopes, decay), factors.inputs)


def rule_steps(post: Tensor, pre: Tensor, decay: float) -> dict[str, Tensor]:
    """The step `[n_post, n_pre]` of each rule of pairs, summed over time and examples; derived in chapter 08.

    `post` `[T, B, n_post]`: 1 where a neuron fired, or what each of its spikes counts for; `pre` `[T, B, n_pre]`. Both
    may be of either sign.

    - `rates`: the product of the two means over time: Hebb's rule
    - `pre first`: a pair counts `decay ** delay`, the same step included
    - `post first`: its mirror image, the same step left out
    - `STDP`: chapter 5's pair rule with both sides equal; post spikes count in the step in which they are handed out
    """
    handed_out = torch.zeros_like(post)
    handed_out[1:] = post[:-1]
    trace, trace_out = spike_trace(pre, decay), spike_trace(handed_out, decay)
    return {
        "rates": torch.einsum("bj,bi->ji", post.mean(dim=0), pre.mean(dim=0)),
        "pre first": _pairs(post, trace),
        "post first": _pairs(spike_trace(post, decay) - post, pre),
        "STDP": _pairs(handed_out, trace - pre) - _pairs(trace_out - handed_out, pre),
    }


def cosines(
    factors: Credit,
    permuted_signals: Tensor,
    decay: float,
    tau_decay: float,
    controls: Controls,
    generator: torch.Generator,
    n_shuffles: int = 3,
) -> dict[str, dict[str, float]]:
    """Cosine of the exact step with each rule's step and with its nulls, for `centred` inputs; recorded for chapter 08.

    Centred: the mean of each input over all steps and examples is taken off. What it adds to a step is the same for
    all examples: the step of the biases, in the shape of the mean image. `decay` is the layer's, `tau_decay` that of
    the rules' windows. The rules know events, not amplitudes, of their own layer's spikes.

    - without an error: `Hebb`, `STDP`, `pre first`, `post first`
    - `error x ...`: `error` is one number for each example and neuron, the mean of minus the learning signal over the
      steps that have one; `error x pre, post a mean`: each neuron's spikes replaced by its mean rate
    - `signal x trace`: the learning signal times a trace without resets
    - `reward x pre first`: one number for each example, how much lower its loss is than the mean; `right x pre first`:
      whether its answer is right, less the mean
    - nulls: `..., other inputs` (another example's), `..., labels permuted`, `..., rewards permuted`, and those of
      `timing_cosines`
    """
    centre = factors.inputs.mean(dim=(0, 1))
    these = factors._replace(inputs=factors.inputs - centre)
    inputs, fired = these.inputs, (these.outputs > 0).to(these.inputs.dtype)
    exact, trace = gradient_step(these, decay), spike_trace(inputs, tau_decay)
    error, permuted = _mean_error(these.signals), _mean_error(permuted_signals)
    found = _named(exact, rule_steps(fired, inputs, tau_decay), "", "")
    found["Hebb"] = found.pop("rates")
    found |= timing_cosines(exact, fired, inputs, tau_decay, generator, n_shuffles)
    found |= _named(exact, rule_steps(fired * error, inputs, tau_decay), "error x ", "")
    elsewhere = rule_steps(fired, inputs[:, controls.others], tau_decay)
    found["Hebb, other inputs"] = _cosine(exact, elsewhere["rates"])
    found["pre first, other inputs"] = _cosine(exact, elsewhere["pre first"])
    for name, post, pre in (
        ("signal x trace", -these.signals, trace),
        ("error x pre, post a mean", (fired.mean(dim=(0, 1)) * error).expand_as(fired), trace),
        ("reward x pre first", fired * controls.rewards[:, None], trace),
        ("right x pre first", fired * controls.right[:, None], trace),
        ("error x pre first, labels permuted", fired * permuted, trace),
        ("reward x pre first, rewards permuted", fired * controls.rewards[controls.shuffle][:, None], trace),
    ):
        found[name] = _cosine(exact, _pairs(post, pre))
    return {"centred": found}


def timing_cosines(
    step: Tensor, fired: Tensor, inputs: Tensor, decay: float, generator: torch.Generator, n_shuffles: int = 3
) -> dict[str, float]:
    """Cosine of a step with what the *times* of spikes add to each rule without an error; recorded for chapter 08.

    A neuron that merely fires more for some inputs makes pairs at every delay. What chance makes of its number of
    spikes is the rule's mean step over all orders of its spikes within the example: as the rules are sums over spikes,
    each spike train's mean over time in its place. `..., timing` is the rule's step without that. `..., shuffled` and
    `..., timing, shuffled`: spikes at random times of the same example, the mean of `n_shuffles` draws.
    """

    def found(post: Tensor, after: str) -> dict[str, float]:
        named = _named(step, rule_steps(post, inputs, decay), "", after)
        by_times = rule_steps(post - post.mean(dim=0), inputs, decay)
        halves = {name: by_times[name] for name in ("pre first", "post first")}
        return {name: value for name, value in named.items() if "rates" not in name} | _named(
            step, halves, "", f", timing{after}"
        )

    shuffles = [found(_shuffled(fired, generator), ", shuffled") for _ in range(n_shuffles)]
    means = {name: sum(each[name] for each in shuffles) / n_shuffles for name in shuffles[0]}
    return {name: value for name, value in found(fired, "").items() if "timing" in name} | means


def positive_control(factors: Credit, decay: float, generator: torch.Generator) -> dict[str, float]:
    """`timing_cosines` of a step that *is* STDP, under noise as long as itself: a test must find it.

    Recorded for chapter 08.
    """
    inputs, fired = factors.inputs - factors.inputs.mean(dim=(0, 1)), (factors.outputs > 0).to(factors.inputs.dtype)
    step = rule_steps(fired, inputs, decay)["STDP"]
    noise = torch.randn(step.shape, generator=generator, device="cpu").to(inputs)
    step = step / step.norm().clamp(min=1e-30) + noise / noise.norm()
    found = timing_cosines(step, fired, inputs, decay, generator)
    return {name: value for name, value in found.items() if "timing" in name}


def two_sided(step: Tensor, pre_first: Tensor, post_first: Tensor) -> dict[str, float]:
    """The two-sided window nearest to a step: `a * pre_first + b * post_first` by least squares; used in chapter 08.

    Returns `a`, `b`, their `ratio` b / a (0 if a is 0), the `cosine` of the best fit with the step. STDP has a ratio
    below 0; that of a window that potentiates on both sides is above 0.
    """
    sides = torch.stack([pre_first.flatten(), post_first.flatten()]).double()
    scales = sides.norm(dim=1).clamp(min=1e-30)
    unit = sides / scales[:, None]
    a, b = (torch.linalg.pinv(unit @ unit.T) @ (unit @ step.flatten().double()) / scales).tolist()
    return {
        "a": a,
        "b": b,
        "ratio": b / a if a else 0.0,
        "cosine": _cosine(step.double(), a * pre_first.double() + b * post_first.double()),
    }


def halves(factors: Credit, decay: float, tau_decay: float) -> dict[str, dict[str, float]]:
    """`two_sided` of the exact step, centred, for pairs as they are, `plain`; their `timing`; and times the `error`."""
    these = factors._replace(inputs=factors.inputs - factors.inputs.mean(dim=(0, 1)))
    fired, exact = (these.outputs > 0).to(these.inputs.dtype), gradient_step(these, decay)
    found = {}
    for name, post in (
        ("plain", fired),
        ("timing", fired - fired.mean(dim=0)),
        ("error", fired * _mean_error(these.signals)),
    ):
        steps = rule_steps(post, these.inputs, tau_decay)
        found[name] = two_sided(exact, steps["pre first"], steps["post first"])
    return found


def hebbian_share(factors: Credit, chosen: Tensor, decay: float, tau_decay: float) -> dict[str, float]:
    """How Hebbian the step of some examples is, for centred inputs; recorded for chapter 08.

    `chosen` `[B]` is true for these examples. `Hebb`, `STDP`: the step's cosine with these rules' steps. `preference`:
    -1 to 1, whether the error asks for more of what the neuron does more than in its mean over all examples (1), or for
    less (-1).
    """
    usual = (factors.outputs > 0).to(factors.inputs.dtype).mean(dim=(0, 1))
    inputs = factors.inputs[:, chosen] - factors.inputs.mean(dim=(0, 1))
    these = Credit(inputs, *(part[:, chosen] for part in factors[1:]))
    fired, error = (these.outputs > 0).to(inputs.dtype), _mean_error(these.signals)
    exact, liking = gradient_step(these, decay), fired.mean(dim=0) - usual
    steps = rule_steps(fired, inputs, tau_decay)
    return {
        "n": float(chosen.sum()),
        "Hebb": _cosine(exact, steps["rates"]),
        "STDP": _cosine(exact, steps["STDP"]),
        "preference": ((error * liking).sum() / (error * liking).abs().sum().clamp(min=1e-30)).item(),
    }


# --- Windows --------------------------------------------------------------------------------------


BEFORE = ("kernel", "credit_raised", "change")  # the windows that are kept of a network before training


def windows(factors: Credit, decay: float, n_delays: int, generator: torch.Generator) -> dict[str, list[float]]:
    """What the delay of a pre/post pair does to its part in the gradient step; derived in chapter 08.

    For delays 0, 1, ... `n_delays - 1`:

    - `kernel`: what is left of the learning signal when it reaches the input, in the mean over all signals, weighted
      by their size; `kernel_shuffled`: the same, signals at random times
    - `share`: the part of the whole step, for centred inputs, that comes from pairs of this delay: its projection on
      the step; all delays together make 1. `share_shuffled`: the same, signals at random times

    For delays from `-n_delays` to `n_delays`:

    - `credit_raised`: what an input gets in all, by its delay to a spike of the neuron whose signal asks for more, per
      mean absolute signal; `credit_raised_shuffled`: the same around random times
    - `change`: as an experimenter sees it, the mean change per pair, all spikes, in the same unit (`mean_change`)
    - `window`, `window_error`, `window_shuffled`: `fitted_window` of spikes as they are, times the error, at random
      times; `fit`: the cosines of these three fits with the step
    """
    inputs, outputs, slopes, signals = factors
    n_delays = min(n_delays, len(signals) - 1)
    shuffled = _shuffled(signals, generator)
    size = signals.abs().sum() / (signals != 0).sum().clamp(min=1)
    found: dict[str, list[float]] = {}
    for name, which in (("kernel", signals), ("kernel_shuffled", shuffled)):
        weights = pair_weights(which.abs(), slopes, decay, n_delays)
        found[name] = [(w.sum() / which.abs().sum().clamp(min=1e-30)).item() for w in weights]

    centred = factors._replace(inputs=inputs - inputs.mean(dim=(0, 1)))
    step = gradient_step(centred, decay)
    for name, which in (("share", signals), ("share_shuffled", shuffled)):
        changes = (-_pairs(w, centred.inputs[: len(w)]) for w in pair_weights(which, slopes, decay, n_delays))
        found[name] = [((change * step).sum() / step.square().sum()).item() for change in changes]

    credit, fired = input_credit(signals, slopes, decay), (outputs > 0).to(inputs.dtype)
    for name, sizes in (
        ("credit_raised", (signals * fired).clamp(max=0)),
        ("credit_raised_shuffled", shuffled.clamp(max=0)),
    ):
        found[name] = triggered(-credit, sizes.abs(), n_delays)
    found["change"] = mean_change(-credit / size.clamp(min=1e-30), fired, inputs, n_delays)

    found["fit"], wide = [], min(2 * n_delays, len(signals) - 1)
    for name, post in (
        ("window", fired),
        ("window_error", fired * _mean_error(signals)),
        ("window_shuffled", _shuffled(fired, generator)),
    ):
        # Fitted on twice as many delays as are kept: else the last would stand for all that are longer.
        fitted, cosine = fitted_window(step, post, centred.inputs, wide)
        found[name] = fitted[wide - n_delays : wide + n_delays + 1]
        found["fit"].append(cosine)
    return found


def triggered(values: Tensor, sizes: Tensor, n_delays: int) -> list[float]:
    """The sum of `values[t - d]` over the t where `sizes` is not zero, divided by the sum of the sizes there.

    For d from `-n_delays` to `n_delays`; both `[T, B, n]`. Times outside the recording are left out.
    """
    means = []
    for here, there in _at_delays(sizes, values, n_delays):
        means.append(((there * (here != 0)).sum() / here.sum().clamp(min=1e-30)).item())
    return means


def mean_change(credit: Tensor, fired: Tensor, inputs: Tensor, n_delays: int) -> list[float]:
    """The mean change of a synapse by its presynaptic pulse, over all pairs at each delay; recorded for chapter 08.

    What an experimenter would plot who sees spikes and changes alone: a pulse at `s` changes its weight by `credit[s]`
    in all, `[T, B, n_neurons]`; a pair is that pulse with a spike of the neuron at `s + d`, for d from `-n_delays` to
    `n_delays`. Inputs above 0 are pulses, and a pulse counts by its height. Delays with no pair get 0.
    """
    pulses = inputs.clamp(min=0).sum(dim=2, keepdim=True)
    means = []
    for here, (there, arriving) in (
        (here, there.split([credit.shape[2], 1], dim=2))
        for here, there in _at_delays(fired, torch.cat([credit, pulses], dim=2), n_delays)
    ):
        pairs = here * arriving
        means.append(((pairs * there).sum() / pairs.sum().clamp(min=1e-30)).item())
    return means


def fitted_window(step: Tensor, post: Tensor, inputs: Tensor, n_delays: int) -> tuple[list[float], float]:
    """The window that, given to all pairs alike, comes nearest to the step; used in chapter 08.

    One least-squares fit of the step `[n_neurons, n_inputs]` to the number of pairs at each delay from `-n_delays` to
    `n_delays`: other than a mean, it does not take for a window what is the inputs' own correlation over time.
    Returns the window, its largest entry 1 in size, and the cosine of the fit with the step.
    """
    counts = torch.stack([_pairs(here, there).flatten() for here, there in _at_delays(post, inputs, n_delays)]).double()
    scale = counts.norm(dim=1).mean().clamp(min=1e-30)
    target = step.flatten().double()
    window = torch.linalg.lstsq((counts / scale).T.cpu(), target[:, None].cpu()).solution[:, 0].to(counts)
    cosine = _cosine(target, window @ counts)
    return (window / window.abs().max().clamp(min=1e-30)).tolist(), cosine


def share_at_spikes(factors: Credit, decay: float) -> float:
    """The part of a layer's step, for centred inputs, that the learning signals at its own spikes account for."""
    centred = factors._replace(inputs=factors.inputs - factors.inputs.mean(dim=(0, 1)))
    at_spikes = factors.signals * (factors.outputs > 0)
    step, part = gradient_step(centred, decay), gradient_step(centred._replace(signals=at_spikes), decay)
    share: float = ((part * step).sum() / step.square().sum()).item()
    return share


def _at_delays(post: Tensor, pre: Tensor, n_delays: int) -> Any:
    """For d from `-n_delays` to `n_delays`: `post` at all t, and `pre` at t - d, where both are in the recording."""
    n_steps = len(post)
    for delay in range(-n_delays, n_delays + 1):
        yield (
            post[max(0, delay) : n_steps + min(0, delay)],
            pre[max(0, -delay) : n_steps - max(0, delay)],
        )


def _pairs(post: Tensor, pre: Tensor) -> Tensor:
    return torch.einsum("tbj,tbi->ji", post, pre)


def _mean_error(signals: Tensor) -> Tensor:
    return -signals.sum(dim=0) / (signals != 0).sum(dim=0).clamp(min=1)


def _shuffled(values: Tensor, generator: torch.Generator) -> Tensor:
    """Each neuron's values of each example in a random order of the steps."""
    order = torch.rand(values.shape, generator=generator, device="cpu").argsort(dim=0).to(values.device)
    return values.gather(0, order)


def _named(step: Tensor, steps: Mapping[str, Tensor], before: str, after: str) -> dict[str, float]:
    return {f"{before}{name}{after}": _cosine(step, other) for name, other in steps.items()}


def _cosine(one: Tensor, other: Tensor) -> float:
    cosine: float = ((one * other).sum() / (one.norm() * other.norm()).clamp(min=1e-30)).item()
    return cosine


# --- The verdicts -----------------------------------------------------------------------------------

MARGIN = 0.1  # how far above its null a cosine must be, stated before the record was made


def condition(settings: Mapping[str, Any]) -> str:
    """The name of what a trial was made with, but for its seed: such as "patterns, scale" or "digits, no penalty"."""
    if settings["task"] == "digits, no time":
        return "digits, no time"  # that network has no reset
    if settings.get("binary"):
        what = "binary spikes"
    elif settings.get("penalty", 1.5) == 0:
        what = "no penalty"
    elif settings.get("decay", 0.9) == 0:
        what = "no memory"
    else:
        what = settings.get("reset", "scale")
    return f"{settings['task']}, {what}"


class Agreement(NamedTuple):
    """Whether a rule's step agrees with the gradient's, by condition.

    `decisions`: "holds", "fails" or "open"; `figures` and `nulls`: the means and half-widths of the 95 % intervals over
    seeds of the rule's cosine and of its null's.
    """

    decisions: dict[str, str]
    figures: dict[str, tuple[float, float]]
    nulls: dict[str, tuple[float, float]]

    @property
    def verdict(self) -> str:
        """One for all conditions: "holds", "holds if" (under some), "fails" or "open"."""
        return verdict(self.decisions)


def agreement(
    trials: Sequence[Mapping[str, Any]],
    rule: str,
    null: str,
    sign: int = 1,
    margin: float = MARGIN,
    measured: str = "cosines",
) -> Agreement:
    """Is `sign` times a rule's cosine above that of its null by `margin`, after training? From chapter 08.

    `trials`: rows of a record, five seeds or more a condition; `rule` and `null`: names of `cosines`, of the hidden
    layer; with `measured` "control", those of `positive_control`. Figures and nulls come without the sign.
    """
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for trial in trials:
        last = trial["probes"][-1]
        rows.setdefault(condition(trial["settings"]), []).append(
            last["cosines"][0]["centred"] if measured == "cosines" else last[measured]
        )
    return Agreement(
        {
            name: decide([sign * row[rule] for row in found], [sign * row[null] for row in found], margin)
            for name, found in rows.items()
        },
        *(
            {name: mean_and_interval([row[key] for row in found]) for name, found in rows.items()}
            for key in (rule, null)
        ),
    )


class Question(NamedTuple):
    """The answer to the book's question, whether backpropagation engenders STDP: see `question`.

    `verdict`: one for all conditions in which the test can see; `whole`: by condition; `causal`, `depression`: each
    half's agreement; `control`: by condition, whether a step that is STDP passes the same test.
    """

    verdict: str
    whole: dict[str, str]
    causal: Agreement
    depression: Agreement
    control: dict[str, str]


def question(trials: Sequence[Mapping[str, Any]], margin: float = MARGIN) -> Question:
    """Does backpropagation engender STDP? Derived in chapter 08.

    STDP has two halves: pairs with pre first raise a weight, pairs with post first lower it. Each half must agree with
    the gradient step of the trained hidden layer: what the spikes' times add to it must be nearer to the step than the
    same with spikes at random times, by `margin` in the cosine, with the whole 95 % interval over seeds. STDP is there
    where both are. Where the same test does not find STDP in a step made of it, the test is blind: that condition is
    "open", and has no part in the verdict but that this cannot be "holds" for all.

    The margin was stated before the record was made. The measure, what the times add, was chosen on a trial run with
    seed 0, which is one of the record's: the chapter shows the plain cosines, and the answer without that seed, too.

    `trials`: rows of the record `08_plasticity`, five seeds or more a condition.
    """

    def sides(measured: str) -> tuple[Agreement, Agreement]:
        return (
            agreement(trials, "pre first, timing", "pre first, timing, shuffled", 1, margin, measured),
            agreement(trials, "post first, timing", "post first, timing, shuffled", -1, margin, measured),
        )

    (causal, depression), made = sides("cosines"), sides("control")
    control = {name: _both(*(side.decisions[name] for side in made)) for name in causal.decisions}
    whole = {
        name: _both(causal.decisions[name], depression.decisions[name]) if control[name] == "holds" else "open"
        for name in causal.decisions
    }
    seen = {name: decision for name, decision in whole.items() if control[name] == "holds"}
    found = verdict(seen) if seen else "open"
    if found == "holds" and len(seen) < len(whole):
        found = "holds if"
    return Question(found, whole, causal, depression, control)


def hebbian(trials: Sequence[Mapping[str, Any]], margin: float = MARGIN) -> Agreement:
    """Does a gradient step agree with Hebb's rule, with no error? Derived in chapter 08.

    Rates of neuron and input, multiplied, against the same with another example's inputs. As that example has another
    label, this null may lie below zero, which is the mean over all ways to swap the centred inputs. The task
    "patterns" is left out: its rates are equal by construction, so Hebb's step is zero there, and what was recorded of
    it is rounding.
    """
    rates_differ = [trial for trial in trials if trial["settings"]["task"] != "patterns"]
    return agreement(rates_differ, "Hebb", "Hebb, other inputs", 1, margin)


def _both(one: str, other: str) -> str:
    return "fails" if "fails" in (one, other) else "holds" if one == other == "holds" else "open"


# --- The records ----------------------------------------------------------------------------------


def measure_plasticity(**settings: Any) -> dict[str, Any]:
    """As `plasticity_trial`, or with the task "digits, no time" as `static_trial`, on the whole of MNIST."""
    if settings["task"] == "digits, no time":
        return static_trial(settings["seed"], whole_mnist()[0], device="cpu")
    return plasticity_trial(train=whole_mnist()[0] if settings["task"] == "digits" else None, **settings)


SEEDS = range(5)
TIMED = {"n_steps": 64}  # of the tasks made of patterns

RECORDS: dict[str, Record] = {
    "08_plasticity": Record(
        "What gradient steps are made of, in training: 784-100-10 on digits, 128 steps, and 200-100-10 on ten patterns"
        " of three pulses an input, or of a free number, 64 steps; 300 updates of 100 examples, probed on 200",
        measure_plasticity,
        [
            {"task": task, "seed": seed, "reset": reset, "probe_at": probe_at} | (TIMED if task != "digits" else {})
            for reset, probe_at in (("scale", [0, 10, 100, 300]), ("discharge", [0, 300]))
            for task in TASKS
            for seed in SEEDS
        ],
    ),
    "08_controls": Record(
        "The same without a reset (penalty 0), without memory (decay 0), with binary spikes, and in a network without"
        " time or spikes",
        measure_plasticity,
        [
            {"task": task, "seed": seed, "probe_at": [0, 300]} | settings
            for task, settings in (
                # Rates that learn where others did not, tried on a seed of their own.
                ("patterns", {"penalty": 0.0, "learning_rate": 0.01} | TIMED),
                ("patterns", {"decay": 0.0, "threshold": 0.2, "learning_rate": 1.0} | TIMED),
                ("patterns", {"binary": True} | TIMED),
                ("free", {"binary": True} | TIMED),
                ("digits", {"penalty": 0.0, "learning_rate": 0.003}),
            )
            for seed in SEEDS
        ]
        + [{"task": "digits, no time", "seed": seed} for seed in SEEDS],
    ),
}

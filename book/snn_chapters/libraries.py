"""The window of one synapse, drawn by the neurons of other libraries; recorded for chapter 06.

snnTorch, Norse and SpikingJelly have binary spikes. Autograd goes through a spike by a surrogate derivative, and
each library decides whether it also goes through the reset's gate. The experiment is that of `gradient_window`: a
clamp holds the charge, a pulse arrives through a weight of 0, and autograd says how the spike would answer.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from torch import Tensor

from snn_helpers.long.autocast import with_gradients
from snn_helpers.long.checks import delays_and_spikes, one_of, real
from snn_helpers.long.plain import significant
from snn_helpers.long.recording import Record

DECAY, THRESHOLD = 0.9, 1.0  # of every neuron here
SYNAPSE = 0.8  # what a step leaves of the current in Norse's LIFCell: 1 - 1 ms / 5 ms
DELAYS, EARLIER = list(range(-4, 21)), 6  # of the recorded curves; the spike in between
PROBE = -1000.0  # a current that lets no neuron fire

Step = Callable[[Tensor, Any], tuple[Tensor, Any]]


class Cell(NamedTuple):
    """A neuron as a function that keeps nothing.

    `step(current, state)` returns the spikes and the next state; `start(shape)` gives the state at rest, and
    `voltage(state)` is the part of the state that holds the membrane's voltage. A current of 1 raises the charge of
    its own step by `gain`; a share `synapse` of it flows in the next step too, if the neuron has a synaptic current.
    """

    step: Step
    start: Callable[[tuple[int, ...]], Any]
    voltage: Callable[[Any], Tensor]
    gain: float = 1.0
    synapse: float = 0.0


class Described(NamedTuple):
    """What a library's documentation and code say of a neuron: enough to predict its window.

    `reset` is "subtract" (the threshold is taken off) or "zero"; `detached`, whether autograd is kept out of the
    reset's gate; `surrogate`, the derivative of a spike by the charge, `x` above the threshold.
    """

    library: str
    layer: str
    reset: str
    detached: bool
    surrogate: Callable[[float], float]
    gain: float = 1.0
    synapse: float = 0.0

    def passes(self, charge: float) -> float:
        """How the state that a step leaves answers to its charge, by autograd."""
        fired = float(charge > THRESHOLD)
        kept = 1.0 if self.reset == "subtract" else 1.0 - fired
        taken = THRESHOLD if self.reset == "subtract" else charge
        return kept if self.detached else kept - taken * self.surrogate(charge - THRESHOLD)

    def window(self, delays: Sequence[int], earlier: Sequence[int], above: float, rest: float) -> list[float]:
        """The law: what `clamped_window` must find.

        The surrogate's derivative at the spike, times what is left of the pulse. From one step to the next that is
        `decay` times what the step's reset passes; a synaptic current adds to it.
        """
        delays, earlier = delays_and_spikes(delays, earlier)
        found = []
        for delay in delays:
            left, current = 0.0, 1.0
            for ago in range(delay, -1, -1):
                left += self.gain * current
                current *= self.synapse
                if ago > 0:
                    left *= DECAY * self.passes(THRESHOLD + above if ago in earlier else rest)
            found.append(self.surrogate(above) * left)
        return found


def _atan(x: float) -> float:
    return 1 / (1 + (math.pi * x) ** 2)


def _superspike(x: float) -> float:
    return 1 / (1 + abs(x)) ** 2


def _sigmoid(x: float) -> float:
    return 4 / (2 + 2 * math.cosh(4 * x))


DESCRIBED: dict[str, Described] = {
    "snnTorch Leaky, subtract": Described("snntorch", "Leaky", "subtract", True, _atan),
    "snnTorch Leaky, zero": Described("snntorch", "Leaky", "zero", True, _atan),
    "snnTorch Leaky, subtract, no delay": Described("snntorch", "Leaky", "subtract", False, _atan),
    "snnTorch Leaky, zero, no delay": Described("snntorch", "Leaky", "zero", False, _atan),
    "Norse LIFBoxCell, value": Described("norse", "LIFBoxCell", "zero", False, _superspike, 1 - DECAY),
    "Norse LIFBoxCell, subtract": Described("norse", "LIFBoxCell", "subtract", False, _superspike, 1 - DECAY),
    "Norse LIFCell": Described("norse", "LIFCell", "zero", False, _superspike, 1 - DECAY, SYNAPSE),
    "SpikingJelly LIFNode, hard": Described("spikingjelly", "LIFNode", "zero", False, _sigmoid),
    "SpikingJelly LIFNode, hard, detached": Described("spikingjelly", "LIFNode", "zero", True, _sigmoid),
    "SpikingJelly LIFNode, soft": Described("spikingjelly", "LIFNode", "subtract", False, _sigmoid),
    "SpikingJelly LIFNode, soft, detached": Described("spikingjelly", "LIFNode", "subtract", True, _sigmoid),
}


@with_gradients
def clamped_window(
    cell: Cell, delays: Sequence[int], earlier: Sequence[int] = (), above: float = 0.5, rest: float = 0.0
) -> list[float]:
    """The derivative of the spike at `t_post` by the weight of a pulse, for any neuron; recorded for chapter 06.

    A clamp gives the neuron the current that holds its charge `above` the threshold at `t_post`, and `d` steps
    before for each `d` in `earlier`, and at `rest` in all other steps. A pulse of height 1 arrives at `t_pre`
    through a weight of 0. The values of everything are those of the clamp; only the derivative knows the pulse.

    Parameters
    ----------
    cell : the neuron; what it does with its threshold of 1 is its own affair.
    delays : `t_post - t_pre` in steps, one or more; positive is pre before post.
    earlier : how many steps before `t_post` the neuron also fired, each 1 or more.
    above, rest : in units of the voltage: above 0, and below 1.

    Returns a number for each delay, per unit of weight.
    Raises `TypeError`, `ValueError` for settings that do not fit; `RuntimeError` if the neuron does not fire when it
    is told to, or fires when it is not.
    """
    delays, earlier = delays_and_spikes(delays, earlier)
    above, rest = real("above", above, above=0), real("rest", rest)
    if rest >= THRESHOLD:
        raise ValueError(f"rest must lie below the threshold, {THRESHOLD:g}, not {rest:g}: the neuron would fire")
    t_post = max(0, *delays, *earlier)
    n_steps = t_post - min(0, *delays) + 1
    spike_at = {t_post - d for d in (0, *earlier)}
    pulses = torch.zeros(n_steps, len(delays), dtype=torch.float64, device="cpu")
    for column, delay in enumerate(delays):
        pulses[t_post - delay, column] = 1
    weights = torch.zeros(len(delays), dtype=torch.float64, device="cpu", requires_grad=True)
    state, spikes = cell.start((len(delays),)), []
    for step, pulse in enumerate(pulses):
        held = THRESHOLD + above if step in spike_at else rest
        clamp = (held - _free_charge(cell, state, pulse)) / cell.gain
        fired, state = cell.step(clamp + weights * pulse, state)
        if bool(((fired.detach() > 0) != (step in spike_at)).any()):
            told = "held above" if step in spike_at else "held below"
            raise RuntimeError(f"the clamp does not hold: at step {step} the charge is {told} the threshold")
        spikes.append(fired)
    (gradient,) = torch.autograd.grad(spikes[t_post].sum(), weights)
    return [float(value) for value in gradient]


@torch.no_grad()
def _free_charge(cell: Cell, state: Any, like: Tensor) -> Tensor:
    """The charge of the next step if no current came.

    No library tells the charge, and a reset changes it at once. But a neuron that gets a strong negative current
    does not fire: the voltage that it is left with is its charge, and the current can be added back.
    """
    detached = type(state)(*(part.detach() for part in state)) if isinstance(state, tuple) else state.detach()
    _, after = cell.step(torch.full_like(like, PROBE), detached)
    return cell.voltage(after) - cell.gain * PROBE


def library_cell(neuron: str) -> Cell:
    """One of `DESCRIBED`, made by its library, with that library's own surrogate derivative; recorded for chapter 06.

    Raises `ValueError` for a name that is not there, and `ImportError`, in words, if the library is missing.
    """
    one_of("neuron", neuron, tuple(DESCRIBED))
    told = DESCRIBED[neuron]
    try:
        with _quiet():
            return {"snntorch": _snntorch, "norse": _norse, "spikingjelly": _spikingjelly}[told.library](neuron, told)
    except ImportError as error:
        raise ImportError(
            f"{neuron!r} needs {told.library}, which is not installed ({error}). `requirements-bench.txt` and"
            " `requirements.txt` name the versions: pip install --no-deps -r requirements-bench.txt"
        ) from error


def _zeros(shape: tuple[int, ...]) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64, device="cpu")


def _itself(state: Tensor) -> Tensor:
    return state


def _snntorch(neuron: str, told: Described) -> Cell:
    from snntorch import Leaky

    # With the delay, which is the default, a spike resets the neuron at the start of the next step.
    layer = Leaky(
        beta=torch.tensor(DECAY, dtype=torch.float64),
        threshold=THRESHOLD,
        reset_mechanism=told.reset,
        reset_delay="no delay" not in neuron,
    )
    return Cell(lambda current, state: layer(current, state), _zeros, _itself)


def _norse(neuron: str, told: Described) -> Cell:
    import norse.torch as norse
    from norse.torch.functional.reset import reset_subtract, reset_value

    leak = torch.tensor((1 - DECAY) * 1000, dtype=torch.float64)  # per second; a step is a millisecond
    if told.layer == "LIFCell":
        fading = torch.tensor((1 - SYNAPSE) * 1000, dtype=torch.float64)
        full = norse.LIFCell(p=norse.LIFParameters(tau_mem_inv=leak, tau_syn_inv=fading))
        return Cell(
            full,
            lambda shape: norse.LIFFeedForwardState(v=_zeros(shape), i=_zeros(shape)),
            lambda state: state.v,
            told.gain,
            told.synapse,
        )
    reset = reset_subtract if told.reset == "subtract" else reset_value
    box = norse.LIFBoxCell(p=norse.LIFBoxParameters(tau_mem_inv=leak, reset_method=reset))
    return Cell(box, lambda shape: norse.LIFBoxFeedForwardState(v=_zeros(shape)), lambda state: state.v, told.gain)


def _spikingjelly(neuron: str, told: Described) -> Cell:
    from spikingjelly.activation_based.neuron import LIFNode

    node = LIFNode(
        tau=1 / (1 - DECAY),
        decay_input=False,
        v_threshold=THRESHOLD,
        v_reset=0.0 if told.reset == "zero" else None,
        detach_reset=told.detached,
    )

    def step(current: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        node.v = state
        spike: Tensor = node(current)
        return spike, node.v

    return Cell(step, _zeros, _itself)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


# --- The record ------------------------------------------------------------------------------------


def measure_library(
    neuron: str, aboves: Sequence[float] = (0.1, 0.5), rests: Sequence[float] = (0.0, 0.5)
) -> dict[str, Any]:
    """The window of one library's neuron without and with a spike in between; recorded for chapter 06.

    `neuron` is one of `DESCRIBED`; `aboves` and `rests` are the values of `above` and `rest` of `clamped_window`. It
    draws nothing at random. Returns what the neuron is, the library's version, and `cases`, one for each pair: the
    curves `alone` and `crossed` (one more spike, `EARLIER` steps before) at `DELAYS`; `passed`, the least and the most
    by which the spike in between multiplies what a longer silence leaves; and `worst`, the largest distance of a curve
    from the law, as a share of the law's largest value.
    """
    told, cell, cases = DESCRIBED[one_of("neuron", neuron, tuple(DESCRIBED))], library_cell(neuron), []
    for above in aboves:
        for rest in rests:
            curves, worst = [], 0.0
            for earlier in ((), (EARLIER,)):
                curve = clamped_window(cell, DELAYS, earlier, above, rest)
                law = told.window(DELAYS, earlier, above, rest)
                gap = max(abs(found - expected) for found, expected in zip(curve, law))
                worst = max(worst, gap / max(abs(value) for value in law))
                curves.append(curve)
            ratios = [crossed / alone for delay, alone, crossed in zip(DELAYS, *curves) if delay >= EARLIER]
            case = {"above": above, "rest": rest, "alone": curves[0], "crossed": curves[1]}
            case |= {"passed": [min(ratios), max(ratios)], "worst": worst}
            cases.append(significant(case, 6))
    return {
        "library": told.library,
        "version": version(told.library),
        "layer": told.layer,
        "reset": told.reset,
        "detached": told.detached,
        "cases": cases,
    }


RECORDS: dict[str, Record] = {
    "06_libraries": Record(
        "The derivative of a spike by the weight of a pulse some steps earlier or later, by autograd, for a neuron of"
        " another library with its own surrogate derivative, held by a clamp; without and with a spike in between",
        measure_library,
        [{"neuron": neuron} for neuron in DESCRIBED],
    ),
}

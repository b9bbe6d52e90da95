"""The explorer of chapter 10: its script against autograd and the chapter's own helpers; its Python side."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
import torch
import traitlets
from scripts import Run, script
from snn_chapters import forward_in_time
from snn_chapters.explorers.forward_in_time import ForwardExplorer
from snn_chapters.forward_in_time import OnlineNet
from torch import Tensor

from snn_helpers import SpikingNet
from snn_helpers.neurons import RESETS
from snn_helpers.plasticity import input_credit, reset_slope, spike_trace, three_factors
from snn_helpers.widgets import uniform

CLOSE = 1e-12


run = script("forward_model.js")


def random_case(rng: random.Random) -> dict[str, Any]:
    n_steps = rng.randrange(2, 41)
    return {
        "layers": rng.choice(["one", "two"]),
        "horizon": rng.randrange(0, n_steps + 3),
        "resets": rng.choice(["known", "ignored"]),
        "decay": rng.choice([0.0, 1.0, rng.random(), rng.uniform(0.7, 1)]),
        "threshold": rng.uniform(0.3, 2),
        "penalty": rng.uniform(0, 3),
        "reset": rng.choice(RESETS),
        "weight": rng.uniform(0, 1.5),
        "bias": rng.uniform(-0.2, 0.8),
        "above": rng.uniform(-1, 2),
        "seed": rng.randrange(1000),
        "nSteps": n_steps,
    }


def network(case: dict[str, Any]) -> SpikingNet:
    settings = (case["decay"], case["threshold"], case["penalty"], case["reset"])
    net = SpikingNet(case["nSteps"], 0, (1,) * {"one": 2, "two": 3}[case["layers"]], *settings).double()
    for layer, weight, bias in zip(net.layers, (case["weight"], case["above"]), (0.0, case["bias"])):
        layer.linear.weight.data.fill_(weight)  # type: ignore[union-attr, operator]
        layer.linear.bias.data.fill_(bias)  # type: ignore[union-attr, operator]
    return net


def frames(case: dict[str, Any]) -> Tensor:
    return uniform(case["seed"], case["nSteps"])[:, None, None]


def shown(given: Tensor, left: dict[int, list[Tensor]], images: Tensor, _: int, generator: torch.Generator) -> Tensor:
    """The explorer's flicker in the place of torch's, from its start for each generator, one step at a time."""
    return left.setdefault(id(generator), list(given)).pop(0)[None] * images


def by_the_helpers(case: dict[str, Any]) -> dict[str, Tensor]:
    """Signals, eligibilities and sums from the book's helpers, for the steps whose outcome is read."""
    net, inputs = network(case), frames(case)
    settings = {name: case[name] for name in ("threshold", "penalty", "reset")}
    with torch.no_grad():
        records = net.run(inputs)
    outputs = [record.outputs[1:] for record in records]
    slopes = [reset_slope(fired, **settings) for fired in outputs]
    direct = slopes[-1] / case["nSteps"]
    signals = direct
    if case["layers"] == "two":
        signals = torch.zeros_like(direct)
        for t in range(len(direct) - 1):
            # The future that is known: backpropagation through the steps t + 1 to t + 1 + horizon alone.
            known = slice(t + 1, t + 2 + case["horizon"])
            signals[t] = input_credit(direct[known], slopes[-1][known], case["decay"])[0] * case["above"]
        signals = signals * (outputs[0] > 0)
    kept = slopes[0] if case["resets"] == "known" else torch.ones_like(slopes[0])
    at = case["seed"] % len(signals)  # the sum so far, at one step
    so_far = three_factors(inputs[: at + 1], signals[: at + 1], kept[: at + 1], case["decay"])
    whole = three_factors(inputs[:-1], signals, kept, case["decay"])
    return {"outputs": outputs[0], "signals": signals, "sums": torch.stack([so_far, whole])}


def test_the_rule_is_what_the_helpers_make_of_it_in_hundreds_of_random_settings(run: Run) -> None:
    rng = random.Random(0)
    cases = [random_case(rng) for _ in range(300)]
    fired = 0
    for case, found in zip(cases, run("return s.forwardInTime(c)", cases)):
        expected = by_the_helpers(case)
        n = case["nSteps"] - 1  # what the last step does is handed out too late
        ours = {"outputs": found["first"]["outputs"][:n], "signals": found["signals"][:n]}
        ours["sums"] = [found["sums"][case["seed"] % n], found["sums"][n - 1]]
        for name, values in expected.items():
            torch.testing.assert_close(
                torch.tensor(ours[name], dtype=torch.float64), values.flatten(), rtol=CLOSE, atol=CLOSE
            )
        assert found["signals"][n] == 0 and found["sums"][n] == found["sums"][n - 1]
        plain = spike_trace(frames(case), case["decay"]).flatten()
        torch.testing.assert_close(torch.tensor(found["plain"], dtype=torch.float64), plain, rtol=CLOSE, atol=CLOSE)
        fired += int((expected["outputs"] > 0).sum())
    assert fired > 1000


def test_backpropagation_s_sum_is_autograd_s_derivative(run: Run) -> None:
    rng = random.Random(1)
    cases = [random_case(rng) for _ in range(400)]
    for case, found in zip(cases, run("return s.forwardInTime(c)", cases)):
        net = network(case)
        answer = net.read_out(net.run(frames(case))).sum()
        (wanted,) = torch.autograd.grad(answer, net.layers[0].linear.weight)  # type: ignore[union-attr, arg-type]
        assert found["gradient"] == pytest.approx(wanted.item(), rel=CLOSE, abs=CLOSE)
        assert found["backwards"][0] == found["gradient"]


def test_one_layer_or_a_whole_future_leaves_nothing_out_and_less_leaves_something_out(run: Run) -> None:
    rng = random.Random(2)
    missed = dict.fromkeys(("nothing", "future", "resets"), 0)
    cases = [random_case(rng) | {"resets": "known", "decay": 0.9, "threshold": 1.0} for _ in range(200)]
    for case in cases:
        case["horizon"] = rng.choice([0, case["nSteps"]])
    for left_out in missed:
        changed = [case | {"resets": "ignored" if left_out == "resets" else "known"} for case in cases]
        if left_out != "future":
            changed = [case | {"horizon": case["nSteps"]} for case in changed]
        for case, found in zip(changed, run("return s.forwardInTime(c)", changed)):
            apart = abs(found["sums"][-1] - found["gradient"])
            exact = left_out == "nothing" or (left_out == "future" and (case["layers"] == "one" or case["horizon"]))
            assert not exact or apart < CLOSE
            missed[left_out] += apart > 1e-6
    assert missed["nothing"] == 0 and missed["future"] > 20 and missed["resets"] > 50


def test_the_chapter_s_network_forward_in_time_finds_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(3)
    cases = [random_case(rng) | {"layers": "two"} for _ in range(40)]
    for case, found in zip(cases, run("return s.forwardInTime({...c, resets: 'known', horizon: c.nSteps})", cases)):
        settings = (case["decay"], case["threshold"], case["penalty"], case["reset"])
        net = OnlineNet(case["nSteps"], 0, (1, 1, 1), *settings).double()
        net.load_state_dict(network(case).state_dict())
        draws: dict[int, list[Tensor]] = {}
        monkeypatch.setattr(forward_in_time, "flicker", partial(shown, frames(case), draws))
        net.logits(torch.ones(1, 1, dtype=torch.float64), torch.Generator().manual_seed(0)).sum().backward()
        weight: Any = net.layers[0].linear.weight  # type: ignore[union-attr]
        assert found["gradient"] == pytest.approx(weight.grad.item(), rel=CLOSE, abs=CLOSE)


def test_python_s_network_is_the_one_on_the_page(run: Run) -> None:
    rng = random.Random(4)
    names = ("layers", "decay", "penalty", "weight", "seed")
    for _ in range(20):
        case = random_case(rng)
        case["bias"] = abs(case["bias"])
        explorer = ForwardExplorer(**{name: case[name] for name in (*names, "bias")}, n_steps=case["nSteps"])
        settings = {**explorer.get_state(), "nSteps": explorer.n_steps}
        [found] = run("return s.forwardInTime(c)", [{k: v for k, v in settings.items() if not k.startswith("_")}])
        net = explorer.network()
        records = net.run(explorer.frames())
        for record, neuron in zip(records, [found["first"], found["last"]]):
            states = torch.tensor(neuron["states"][:-1], dtype=torch.float64)
            torch.testing.assert_close(record.states[1:].flatten(), states, rtol=CLOSE, atol=CLOSE)
        (wanted,) = torch.autograd.grad(net.read_out(records).sum(), net.layers[0].linear.weight)  # type: ignore[union-attr, arg-type]
        assert found["gradient"] == pytest.approx(wanted.item(), rel=CLOSE, abs=CLOSE)


def test_settings_are_traits_with_limits() -> None:
    explorer = ForwardExplorer(horizon=4)
    assert explorer._start["horizon"] == 4 and explorer._start["decay"] == 0.9
    for name, wrong in (
        ("layers", "three"),
        ("horizon", -1),
        ("step", -1),
        ("resets", "detached"),
        ("decay", 1.1),
        ("penalty", -0.1),
        ("weight", float("nan")),
        ("bias", -0.1),
        ("seed", 0.5),
        ("n_steps", 1),
    ):
        with pytest.raises(traitlets.TraitError, match=name):
            setattr(explorer, name, wrong)
    with pytest.raises(TypeError, match="unknown: horizons; the settings are step, layers, horizon"):
        ForwardExplorer(horizons=3)


def test_what_the_chapter_answers_of_the_explorer_is_so(run: Run) -> None:
    names = ("layers", "resets", "decay", "penalty", "weight", "bias", "seed")
    start = {name: getattr(ForwardExplorer(), name) for name in names} | {"nSteps": 60}

    def shares(**settings: Any) -> list[float]:
        """The rule's sum by backpropagation's result, for each number of steps of the future."""
        cases = [start | settings | {"horizon": horizon} for horizon in range(61)]
        return [found["sums"][-1] / found["gradient"] for found in run("return s.forwardInTime(c)", cases)]

    def stays_from(found: list[float]) -> int:
        return max(horizon for horizon, share in enumerate(found) if abs(share - 1) > 0.05) + 1

    assert stays_from(shares()) == 17 and stays_from(shares(bias=0)) == 22
    assert abs(shares()[2] - 1) < 0.05 and abs(shares()[4] - 1) > 0.2
    assert all(share == pytest.approx(1, abs=1e-12) for share in shares(layers="one"))
    assert all(4 < share < 5 for share in shares(layers="one", resets="ignored"))
    assert ForwardExplorer().horizon == 0

"""Measure the speed of the book's engine beside other ways to run the same network; `make bench` calls this.

    python book/_scripts/measure/bench.py [--rounds N] [--only main|growth] [--out FILE]

All contenders run in one process, in turn, round after round, on the same images: so a machine that
slows down slows them all down. Every network is 784-100-10 on 128 steps and 1000 images, the input
flickers afresh for each image and step, and the answer is the mean state of the last layer. Neurons
are the article's where the contender is ours, the library's own leaky neuron with its own default
surrogate gradient elsewhere. Libraries are run in two ways, step by step and with the linear layers
on all steps at once; the page counts the faster. It needs Norse and SpikingJelly, which
`requirements-bench.txt` pins.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import platform
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from snn_chapters.speed import ENGINE_SETTINGS
from torch import Tensor, nn

from snn_helpers import Neuron, SpikingNet
from snn_helpers.fast.draws import draw_words, words_for
from snn_helpers.long.files import write_whole
from snn_helpers.long.recording import provenance

RESULTS = Path(__file__).resolve().parents[2] / "results"
DECAY, THRESHOLD, PENALTY = 0.9, 1.0, 1.5
NEURON = Neuron(DECAY, THRESHOLD, PENALTY, "scale")
Run = Callable[[Tensor], Tensor]  # images to the last layer's mean state


class TwoLayers(nn.Module):
    """Two linear layers; what comes between is the contender's."""

    def __init__(self, width: int, n_steps: int) -> None:
        super().__init__()
        self.first, self.second, self.n_steps = nn.Linear(784, width), nn.Linear(width, 10), n_steps


class PlainLoop(TwoLayers):
    """The article's network, step by step as its description says, differentiated by autograd."""

    def forward(self, images: Tensor) -> Tensor:
        state_1 = output_1 = torch.zeros(len(images), self.first.out_features)
        state_2 = torch.zeros(len(images), 10)
        seen = []
        for _ in range(self.n_steps):
            seen.append(state_2)
            frame = images * torch.rand(images.shape)
            _, state_2 = NEURON.step(self.second(output_1), state_2)
            output_1, state_1 = NEURON.step(self.first(frame), state_1)
        return torch.stack(seen).mean(dim=0)


class OneProduct(TwoLayers):
    """What this book did before: the flicker of all steps, one product for a layer, then the loop; autograd."""

    def forward(self, images: Tensor) -> Tensor:
        seen = torch.rand(self.n_steps, *images.shape).mul_(images)
        for linear in (self.first, self.second):
            state = output = torch.zeros(len(images), linear.out_features)
            states, outputs = [], []
            for current in linear(seen):
                states.append(state)
                outputs.append(output)
                output, state = NEURON.step(current, state)
            seen = torch.stack(outputs)
        return torch.stack(states).mean(dim=0)


class Ours(nn.Module):
    """This package's network; the mean state is what its read-out is made of."""

    def __init__(self, width: int, n_steps: int, **options: Any) -> None:
        super().__init__()
        self.net = SpikingNet(n_steps, sizes=(784, width, 10), **options)

    def forward(self, images: Tensor) -> Tensor:
        answers: Tensor = self.net(images)
        return answers


class SnnTorch(TwoLayers):
    """snnTorch's `Leaky`; the read-out is a `Leaky` without a reset."""

    def __init__(self, width: int, n_steps: int, at_once: bool) -> None:
        super().__init__(width, n_steps)
        with _quiet():
            from snntorch import Leaky
        self.at_once = at_once
        self.hidden = Leaky(beta=DECAY, threshold=THRESHOLD)
        self.last = Leaky(beta=DECAY, threshold=THRESHOLD, reset_mechanism="none")

    def forward(self, images: Tensor) -> Tensor:
        potential = torch.zeros(len(images), self.first.out_features)
        last = total = torch.zeros(len(images), 10)
        if not self.at_once:
            for _ in range(self.n_steps):
                spikes, potential = self.hidden(self.first(images * torch.rand(images.shape)), potential)
                _, last = self.last(self.second(spikes), last)
                total = total + last
            return total / self.n_steps
        trains = []
        for current in self.first(torch.rand(self.n_steps, *images.shape).mul_(images)):
            spikes, potential = self.hidden(current, potential)
            trains.append(spikes)
        for current in self.second(torch.stack(trains)):
            _, last = self.last(current, last)
            total = total + last
        return total / self.n_steps


class Norse(TwoLayers):
    """Norse's `LIFBoxCell` and `LIBoxCell`, which have no synaptic current of their own."""

    def __init__(self, width: int, n_steps: int, at_once: bool) -> None:
        super().__init__(width, n_steps)
        with _quiet():
            import norse.torch as norse
        self.at_once = at_once
        leak = torch.tensor((1 - DECAY) * 1000)  # per second; a step is a millisecond
        self.hidden = norse.LIFBoxCell(p=norse.LIFBoxParameters(tau_mem_inv=leak))
        self.last = norse.LIBoxCell(p=norse.LIBoxParameters(tau_mem_inv=leak))

    def forward(self, images: Tensor) -> Tensor:
        hidden = last = None
        total: Any = 0
        if not self.at_once:
            for _ in range(self.n_steps):
                spikes, hidden = self.hidden(self.first(images * torch.rand(images.shape)), hidden)
                potential, last = self.last(self.second(spikes), last)
                total = total + potential
            return total / self.n_steps  # type: ignore[no-any-return]
        trains = []
        for current in self.first(torch.rand(self.n_steps, *images.shape).mul_(images)):
            spikes, hidden = self.hidden(current, hidden)
            trains.append(spikes)
        for current in self.second(torch.stack(trains)):
            potential, last = self.last(current, last)
            total = total + potential
        return total / self.n_steps  # type: ignore[no-any-return]


class SpikingJelly(TwoLayers):
    """SpikingJelly's `LIFNode` and `NonSpikingLIFNode`, step by step or in its multi-step mode (backend torch)."""

    def __init__(self, width: int, n_steps: int, at_once: bool) -> None:
        super().__init__(width, n_steps)
        with _quiet():
            from spikingjelly.activation_based import functional, neuron
        mode = "m" if at_once else "s"
        self.at_once, self.forget = at_once, functional.reset_net
        tau = 1 / (1 - DECAY)
        self.hidden = neuron.LIFNode(tau=tau, decay_input=False, step_mode=mode)
        self.last = neuron.NonSpikingLIFNode(tau=tau, decode="mean-mem")

    def forward(self, images: Tensor) -> Tensor:
        self.forget(self)
        if self.at_once:
            frames = torch.rand(self.n_steps, *images.shape).mul_(images)
            mean: Tensor = self.last(self.second(self.hidden(self.first(frames))))
            return mean
        currents = []
        for _ in range(self.n_steps):
            currents.append(self.second(self.hidden(self.first(images * torch.rand(images.shape)))))
        return self.last(torch.stack(currents))  # type: ignore[no-any-return]


@contextlib.contextmanager
def _quiet() -> Any:
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


CONTENDERS: dict[str, Callable[[int, int], nn.Module]] = {
    "plain loop": PlainLoop,
    "one product, autograd": OneProduct,
    "this book, float32": lambda width, n_steps: Ours(width, n_steps, **ENGINE_SETTINGS["float32"]),
    "this book, mixed": lambda width, n_steps: Ours(width, n_steps, **ENGINE_SETTINGS["mixed"]),
    "this book, fastest": lambda width, n_steps: Ours(width, n_steps, **ENGINE_SETTINGS["fastest"]),
    "snnTorch, step by step": lambda width, n_steps: SnnTorch(width, n_steps, False),
    "snnTorch, at once": lambda width, n_steps: SnnTorch(width, n_steps, True),
    "Norse, step by step": lambda width, n_steps: Norse(width, n_steps, False),
    "Norse, at once": lambda width, n_steps: Norse(width, n_steps, True),
    "SpikingJelly, step by step": lambda width, n_steps: SpikingJelly(width, n_steps, False),
    "SpikingJelly, at once": lambda width, n_steps: SpikingJelly(width, n_steps, True),
}
GROWING = ("plain loop", "one product, autograd", "this book, float32", "this book, mixed", "this book, fastest")


def floor(batch: int, width: int, n_steps: int, what: str) -> Callable[[], None]:
    """What no way around exists for: a step's two products with fresh frames (or one of them), and its draws."""
    frame, weight = torch.rand(batch, 784), torch.randn(width, 784)
    currents, gradient = torch.empty(batch, width), torch.zeros(width, 784)
    words = torch.empty(1, words_for(batch * 784), dtype=torch.int64)

    def run() -> None:
        for _ in range(n_steps):
            if what in ("training", "inference", "products"):
                torch.mm(frame, weight.t(), out=currents)
            if what in ("training", "products"):
                gradient.addmm_(currents.t(), frame)
            if what in ("training", "inference", "draws"):
                draw_words(words, None)

    return run


def training_step(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.5)

    def run() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return run


def inference(model: nn.Module, images: Tensor) -> Callable[[], None]:
    @torch.no_grad()
    def run() -> None:
        model(images)

    return run


def measure(
    names: tuple[str, ...], rounds: int, seed: int, batch: int = 1000, width: int = 100, n_steps: int = 128
) -> list[dict[str, Any]]:
    """Time the contenders in turn, in another order each round; one row for each of them and each task."""
    torch.manual_seed(seed)
    images, labels = torch.rand(batch, 784) - 0.5, torch.arange(batch) % 10
    jobs: dict[tuple[str, str], Callable[[], None]] = {}
    for name in names:
        if name.startswith("floor"):
            for what in ("training", "inference", "products", "draws"):
                jobs[name, what] = floor(batch, width, n_steps, what)
            continue
        model = CONTENDERS[name](width, n_steps)
        jobs[name, "training"] = training_step(model, images, labels)
        jobs[name, "inference"] = inference(model, images)
    seconds: dict[tuple[str, str], list[float]] = {job: [] for job in jobs}
    order = list(jobs)
    for number in range(rounds + 1):
        random.Random(seed + number).shuffle(order)
        for job in order:
            started = time.perf_counter()
            jobs[job]()
            if number > 0:  # the first round only warms up
                seconds[job].append(time.perf_counter() - started)
    return [
        {
            "settings": {"seed": seed, "contender": name, "batch": batch, "width": width, "n_steps": n_steps},
            "task": task,
            "seconds": [round(value, 6) for value in values],
            "total_seconds": round(sum(values), 6),
        }
        for (name, task), values in seconds.items()
    ]


def peak_memory(name: str) -> int:
    """In a process of its own: by how many kB two training steps raise the peak."""
    command = [sys.executable, __file__, "--peak", name]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def highest_memory() -> int:
    """The most memory that this process has held so far, in kB."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1])
    import resource  # not on Windows, where the peak is not measured

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)


def raise_peak(name: str, batch: int = 1000, n_steps: int = 128) -> None:
    model = CONTENDERS[name](100, n_steps)
    training_step(model, torch.rand(2, 784), torch.zeros(2, dtype=torch.int64))()
    before = highest_memory()
    step = training_step(model, torch.rand(batch, 784), torch.zeros(batch, dtype=torch.int64))
    step()
    step()
    print(highest_memory() - before)


def processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=("main", "growth", "memory"))
    parser.add_argument("--out", type=Path, default=RESULTS / "performance.json")
    parser.add_argument("--peak")
    arguments = parser.parse_args()
    if arguments.peak:
        raise_peak(arguments.peak)
        return
    old = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.only else {"trials": [], "memory": {}}
    rows = [row for row in old["trials"] if (row["part"] != arguments.only)]
    memory = old["memory"]
    if arguments.only in (None, "main"):
        rows += [{"part": "main", **row} for row in measure(("floor", *CONTENDERS), arguments.rounds, seed=0)]
    if arguments.only in (None, "growth"):
        sizes = [{"n_steps": n, "batch": 100} for n in (8, 16, 64, 256, 1024)]
        sizes += [{"batch": n} for n in (1, 10, 100, 1000)]
        sizes += [{"width": n, "batch": 100} for n in (25, 100, 400)]
        for size in sizes:
            print(size, flush=True)
            rows += [{"part": "growth", **row} for row in measure(GROWING, arguments.rounds, seed=1, **size)]
    if arguments.only in (None, "memory"):
        memory = {name: peak_memory(name) for name in CONTENDERS}
    told = provenance("Seconds for one training step and one inference pass of one batch, contenders in turn")
    told["processor"] = processor()
    told["packages"] = {name: version(name) for name in ("torch", "snntorch", "norse", "spikingjelly")}
    content = {"provenance": told, "memory": memory, "trials": rows}
    write_whole(arguments.out, (json.dumps(content, indent=1) + "\n").encode())
    for row in rows:
        if row["part"] == "main":
            middle = sorted(row["seconds"])[len(row["seconds"]) // 2]
            print(f"{row['settings']['contender']:28s} {row['task']:10s} {middle * 1000:8.1f} ms")
    print("peak memory, MB:", {name: round(kilobytes / 1024) for name, kilobytes in memory.items()})


if __name__ == "__main__":
    main()

"""`fit` in several processes, started by torchrun: held to the same training in one process, and to kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import SETTINGS, noisy_mlp, patterns, same_weights, spiking, without_seconds

from snn_helpers import History, SpikingNet, fit
from snn_helpers.training import CheckpointError

# What each process does, in order; `torchrun` starts two of them.
WORKER = """
import os, signal, sys
from pathlib import Path
import torch
import torch.distributed as dist
from snn_helpers import fit
from snn_helpers.training import CheckpointError
from test_distributed import RUNS
from test_training import SETTINGS, noisy_mlp, patterns, spiking, without_seconds

folder, task, victim, n_calls = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(1)
dist.init_process_group("gloo")
rank = dist.get_rank()


def keep(name, model, history):
    torch.save({"weights": model.state_dict(), "history": repr(without_seconds(history))},
               folder / f"{name}-{rank}.result")


if task == "all":
    for name, (make, settings) in RUNS.items():
        # Only the weights of the first process count.
        model = make(seed=0 if rank == 0 else 99)
        checkpoint = folder / f"{name}.pt"
        history = fit(model, patterns(), checkpoint=checkpoint, checkpoint_every=3, **SETTINGS | settings)
        keep(name, model, history)
    try:
        fit(spiking(), patterns(), **SETTINGS | {"parts": 3})
    except ValueError as error:
        (folder / f"parts-{rank}.error").write_text(str(error))
    # Each process looks into a folder of its own, and only the first one finds a checkpoint.
    (folder / str(rank)).mkdir()
    if rank == 0:
        (folder / "0" / "run.pt").write_bytes((folder / "even.pt").read_bytes())
    try:
        fit(spiking(), patterns(), checkpoint=folder / str(rank) / "run.pt", **SETTINGS | RUNS["even"][1])
    except CheckpointError as error:
        (folder / f"disagree-{rank}.error").write_text(str(error))
else:
    make, settings = RUNS[task]
    model = make()
    first = int(os.environ["TORCHELASTIC_RESTART_COUNT"]) == 0
    if rank == victim and first:
        calls = iter(range(n_calls))
        model.register_forward_pre_hook(
            lambda *_: os.kill(os.getpid(), signal.SIGKILL) if next(calls, None) is None else None
        )
    checkpoint = folder / f"{task}-{victim}-{n_calls}.pt"
    if not first:  # what it goes on from
        saved = torch.load(checkpoint, weights_only=True)
        (folder / f"{checkpoint.stem}-{rank}.found").write_text(str(len(saved["history"]["loss"])))
    history = fit(model, patterns(), checkpoint=checkpoint, checkpoint_every=3, **SETTINGS | settings)
    keep(checkpoint.stem, model, history)
dist.destroy_process_group()
"""

TESTED: dict[str, Any] = {"test_dataset": patterns(9, 1)}
RUNS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "even": (spiking, {"parts": 2, **TESTED}),
    "mlp": (noisy_mlp, {"parts": 2}),
    "four": (spiking, {"parts": 4, "batch_size": 8}),
    # Of the last batch, 26 = 5 × 5 + 1, one process has nothing.
    "uneven": (noisy_mlp, {"parts": 2, "batch_size": 5}),
}


def torchrun(folder: Path, task: str, victim: int = -1, n_calls: int = 0, restarts: int = 0) -> tuple[int, str]:
    script = folder / "worker.py"
    script.write_text(WORKER)
    here = Path(__file__).parent
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])]),
        "OMP_NUM_THREADS": "1",
        # Else the processes that are started again may find the addresses of the dead.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [
        "--local-addr",
        "127.0.0.1",
        "--max-restarts",
        str(restarts),
        str(script),
        str(folder),
        task,
        str(victim),
        str(n_calls),
    ]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as run:
        try:
            said, _ = run.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            raise
    return run.returncode, said


def alone(name: str, **others: Any) -> tuple[Any, History]:
    make, settings = RUNS[name]
    model = make()
    return model, fit(model, patterns(), **SETTINGS | settings | others)


def load(folder: Path, name: str, rank: int) -> tuple[Any, str]:
    saved = torch.load(folder / f"{name}-{rank}.result", weights_only=True)
    model = RUNS[name.split("-")[0]][0]()
    model.load_state_dict(saved["weights"])
    return model, saved["history"]


def told(history: History) -> str:
    return repr(without_seconds(history))


@pytest.fixture(scope="module")
def together(once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    return once("trained together", train_together)


def train_together(folder: Path) -> None:
    status, said = torchrun(folder, "all")
    assert status == 0, said


@pytest.mark.parametrize("name", ["even", "mlp", "uneven"])
def test_two_processes_end_where_one_ends(name: str, together: Path) -> None:
    """Bit for bit: of two numbers the sum does not depend on the order."""
    model, history = alone(name)
    for rank in (0, 1):
        theirs, their_history = load(together, name, rank)
        assert same_weights(theirs, model)
        assert their_history == told(history)


def test_two_processes_with_two_parts_each_end_where_one_ends(together: Path) -> None:
    """Here four numbers are added in another order: the same but for rounding."""
    model, _ = alone("four")
    first, second = (load(together, "four", rank)[0] for rank in (0, 1))
    assert same_weights(first, second)
    for ours, theirs in zip(model.parameters(), first.parameters()):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["even", "uneven"])
def test_one_process_takes_over_what_two_have_begun(name: str, together: Path, tmp_path: Path) -> None:
    """Their last checkpoint is the one that a single process writes, random states and all."""
    path = tmp_path / "run.pt"
    alone(name, checkpoint=path, checkpoint_every=3)
    ours, theirs = (torch.load(file, weights_only=True) for file in (path, together / f"{name}.pt"))
    for saved in (ours, theirs):
        saved["history"].pop("seconds")
    assert ours["history"] == theirs["history"] and ours["run"] == theirs["run"]
    assert len(ours["noise"]) == len(theirs["noise"]) == 2
    assert not torch.equal(ours["noise"][0], ours["noise"][1])
    for one, other in zip([*ours["noise"], ours["order"]], [*theirs["noise"], theirs["order"]], strict=True):
        assert torch.equal(one, other)


def test_what_cannot_work_is_refused_in_every_process(together: Path) -> None:
    for rank in (0, 1):
        message = (together / f"parts-{rank}.error").read_text()
        for part in ("2 processes", "3 parts", "parts=2", "multiple"):
            assert part in message
        message = (together / f"disagree-{rank}.error").read_text()
        for part in ("disagree", "[(3, 0), (0, 0)]", "every machine shares"):
            assert part in message


def test_a_killed_process_is_started_again_and_the_run_ends_the_same(together: Path, tmp_path: Path) -> None:
    """torchrun ends the other one, starts both afresh, and they go on from the checkpoint.

    The first process, which writes the checkpoint, dies between its two parts of the ninth batch.
    """
    status, said = torchrun(tmp_path, "four", victim=0, n_calls=17, restarts=1)
    assert status == 0, said
    for rank in (0, 1):
        assert (tmp_path / f"four-0-17-{rank}.found").read_text() == "8"
        resumed, history = load(tmp_path, "four-0-17", rank)
        whole, whole_history = load(together, "four", rank)
        assert same_weights(resumed, whole) and history == whole_history


def test_without_a_restart_one_process_finishes_the_run(tmp_path: Path) -> None:
    status, said = torchrun(tmp_path, "even", victim=1, n_calls=10)
    assert status != 0 and "exitcode: -9" in said, said
    path = tmp_path / "even-1-10.pt"
    assert 0 < len(torch.load(path, weights_only=True)["history"]["loss"]) < 21
    whole, history = alone("even")
    resumed, resumed_history = alone("even", checkpoint=path)
    assert same_weights(resumed, whole) and told(resumed_history) == told(history)


def test_parts_are_part_of_the_run(together: Path) -> None:
    with pytest.raises(CheckpointError, match="parts: 2 there, 4 here"):
        alone("even", checkpoint=together / "even.pt", parts=4)


def test_one_process_that_has_joined_a_group_of_one(tmp_path: Path) -> None:
    """As `torchrun --nproc-per-node 1` leaves it."""
    model, plain = SpikingNet(5, sizes=(16, 12, 3), threshold=0.2), spiking()
    model.load_state_dict(plain.state_dict())
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        history = fit(model, patterns(), **SETTINGS)
    finally:
        torch.distributed.destroy_process_group()
    assert told(fit(plain, patterns(), **SETTINGS)) == told(history)
    assert same_weights(model, plain)

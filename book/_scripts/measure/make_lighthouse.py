"""Ask Lighthouse how fast and how sound the built pages are on a phone; `make lighthouse` calls this.

Lighthouse is the only thing that the book asks npm for, and no page and no test needs it: what it says is kept in
book/results/lighthouse.json. The pages are served as their publisher does, with gzip. Its phone is a simulated one,
so that the figures depend little on the machine; what a page's scripts take does depend on it.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from snn_helpers.long.recording import provenance, write_record

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "site"))

from browser import HOW_TO_GET_IT, Quiet, find_chromium, serve
from build_book import pages_in_order

ROOT = Path(__file__).resolve().parents[3]
VERSION = "12.8.2"  # the newest that runs with Node.js 20
RECORD = ROOT / "book" / "results" / "lighthouse.json"
SCORES = ("performance", "accessibility", "best-practices", "seo")
PACKED = (".html", ".css", ".js", ".svg", ".xml", ".json")
HOW_TO_GET_NODE = "Lighthouse needs Node.js 18.20 or newer with npx: get it from your system's packages, or nodejs.org"


class Packed(Quiet):
    """Text with gzip, as publishers of pages send it."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not (path.is_file() and path.suffix in PACKED and "gzip" in self.headers.get("Accept-Encoding", "")):
            super().do_GET()
            return
        packed = gzip.compress(path.read_bytes(), 6)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(packed)))
        self.send_header("Cache-Control", "max-age=600")
        self.end_headers()
        self.wfile.write(packed)


def ask(command: list[str], url: str, chromium: str) -> dict[str, Any]:
    """What Lighthouse says of one page: its scores, the largest paint in seconds, and the kilobytes sent."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told.json"
        flags = "--headless=new --no-sandbox --disable-gpu"
        done = subprocess.run(
            [*command, url, "--quiet", "--output=json", f"--output-path={told}", f"--chrome-flags={flags}"],
            env=os.environ | {"CHROME_PATH": chromium},
            capture_output=True,
            text=True,
        )
        if done.returncode or not told.is_file():
            raise RuntimeError(f"Lighthouse could not look at {url}: {done.stderr[-600:]}")
        report = json.loads(told.read_text(encoding="utf-8"))
    audits = report["audits"]
    return {
        **{name.replace("-", "_"): round(100 * report["categories"][name]["score"]) for name in SCORES},
        "first_paint_s": round(audits["first-contentful-paint"]["numericValue"] / 1000, 2),
        "largest_paint_s": round(audits["largest-contentful-paint"]["numericValue"] / 1000, 2),
        "blocked_ms": round(audits["total-blocking-time"]["numericValue"]),
        "shift": round(audits["cumulative-layout-shift"]["numericValue"], 4),
        "sent_kb": round(audits["total-byte-weight"]["numericValue"] / 1000),
    }


def main() -> int:
    chromium, npx = find_chromium(), shutil.which("npx")
    if chromium is None or npx is None:
        print(HOW_TO_GET_IT if chromium is None else HOW_TO_GET_NODE, file=sys.stderr)
        return 1
    folder = ROOT / "_build" / "html"
    names = sys.argv[1:] or pages_in_order()
    command = [npx, "--yes", f"lighthouse@{VERSION}"]
    rows = []
    with serve(folder, Packed) as address:
        for name in names:
            if not (folder / f"{name}.html").is_file():
                print(f"{name} is not built: run make book, and give names such as book/intro", file=sys.stderr)
                return 1
            start = time.perf_counter()
            told = ask(command, f"{address}/{name}.html", chromium)
            seconds = round(time.perf_counter() - start, 1)
            # How busy the machine was, since the milliseconds of scripts depend on it.
            load = round(os.getloadavg()[0], 1)
            settings = {"page": name, "device": "Lighthouse's phone"}
            rows.append({"settings": settings, **told, "load": load, "total_seconds": seconds})
            print(json.dumps({"page": name, **told, "load": load}), flush=True)
    if not sys.argv[1:]:
        what = provenance(f"What Lighthouse {VERSION} says of each page on its simulated phone, sent with gzip")
        write_record(RECORD, what, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())

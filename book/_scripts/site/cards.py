"""What other sites show of a page: its title, one sentence, and a figure of it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import nbformat
import yaml
from PIL import Image, ImageDraw, ImageFont

SIZE = (1200, 630)
EDGE, INK, GREY, BLUE = 60, "#1b1f24", "#4a5159", "#0072B2"
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def descriptions() -> dict[str, str]:
    """What is said of each page, by its name."""
    listed: dict[str, str] = yaml.safe_load(Path(__file__).with_name("descriptions.yml").read_text(encoding="utf-8"))
    return listed


def figures(notebook: Path, kept: Path) -> Iterator[Image.Image]:
    """The pictures of a notebook in order, from the cache `kept` of its outputs; none, where there are none."""
    if not notebook.is_file() or not kept.is_dir():
        return
    from jupyter_cache import get_cache  # takes a second

    cache = get_cache(str(kept))
    try:
        record = cache.match_cache_notebook(nbformat.read(notebook, as_version=4))
    except KeyError:
        return
    for cell in cache.get_cache_bundle(record.pk).nb.cells:
        for output in cell.get("outputs", []):
            if picture := output.get("data", {}).get("image/png"):
                yield Image.open(io.BytesIO(base64.b64decode(picture)))


def lines(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The text in lines of at most this width."""
    found = [""]
    for word in text.split():
        longer = f"{found[-1]} {word}".strip()
        if found[-1] and draw.textlength(longer, font) > width:
            found.append(word)
        else:
            found[-1] = longer
    return found


def draw_card(title: str, sentence: str, figure: Image.Image | None) -> bytes:
    """A picture of 1200 x 630 pixels, as PNG."""
    card = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(card)
    draw.rectangle((0, 0, 14, SIZE[1]), fill=BLUE)
    y, width = EDGE - 14, SIZE[0] - 2 * EDGE
    for text, name, size, colour in ((title, "DejaVuSans-Bold", 52, INK), (sentence, "DejaVuSans", 27, GREY)):
        font = ImageFont.truetype(str(FONTS / f"{name}.ttf"), size)
        for line in lines(draw, text, font, width):
            draw.text((EDGE, y), line, font=font, fill=colour)
            y += round(1.3 * size)
        y += 12
    small = ImageFont.truetype(str(FONTS / "DejaVuSans.ttf"), 22)
    draw.text((SIZE[0] - EDGE, SIZE[1] - 22), "Spikes and Gradients", font=small, fill=BLUE, anchor="rb")
    if figure is not None:
        shown = Image.new("RGB", figure.size, "white")
        shown.paste(figure, mask=figure.getchannel("A") if figure.mode == "RGBA" else None)
        room = (width, SIZE[1] - 60 - y)
        scale = min(room[0] / shown.width, room[1] / shown.height)
        shown = shown.resize((round(shown.width * scale), round(shown.height * scale)), Image.Resampling.LANCZOS)
        card.paste(shown, ((SIZE[0] - shown.width) // 2, y))
    packed = io.BytesIO()
    card.quantize(128).save(packed, format="PNG", optimize=True)
    return packed.getvalue()

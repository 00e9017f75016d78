"""Pictures as people and files hold them: uint8 <-> [-1, 1], grids, PNG with the request inside, animations.

`images` are float (B, C, H, W) in [-1, 1], as networks see them; `pixels` uint8 (B, H, W, C), as files do.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from torch import Tensor

Pixels = Tensor | np.ndarray

ROUNDING: dict[str, Callable[[Tensor], Tensor]] = {
    # guided-diffusion and latent-diffusion; to_images then to_pixels may lose one level
    "openai": lambda x: (x + 1) * 127.5,
    # EDM and DiT; the round trip is exact
    "edm": lambda x: x * 127.5 + 128,
}
"""Rule -> real-valued grey level; all of them are then clamped to [0, 255] and truncated."""

CHUNK = "unnoise"
"""Key of the PNG text chunk that holds the request as JSON."""
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_GAP = 2
_INK, _PAPER = (32, 32, 32), (255, 255, 255)


def to_pixels(images: Tensor, *, rule: str = "openai") -> Tensor:
    """Grey levels of images, trunc(clamp((x + 1) * 127.5, 0, 255)) by OpenAI's rule.

    images: (B, C, H, W), nominally in [-1, 1], any float type; returns uint8 (B, H, W, C) on the same device.
    """
    levels = ROUNDING[rule](images.detach().float())
    return levels.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def to_images(pixels: Pixels) -> Tensor:
    """Images of grey levels, x = p / 127.5 - 1. pixels: uint8 (B, H, W, C); returns float32 (B, C, H, W)."""
    return torch.as_tensor(pixels).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


def to_pil(pixels: Pixels) -> Image.Image:
    """One picture (H, W, C) for Pillow: grey, RGB or RGBA; other numbers of channels side by side in grey."""
    array = np.asarray(pixels)
    channels = array.shape[-1]
    if channels == 1:
        return Image.fromarray(array[..., 0])
    if channels in (3, 4):
        return Image.fromarray(np.ascontiguousarray(array))
    return Image.fromarray(np.concatenate(list(np.moveaxis(array, -1, 0)), axis=1))


def grid(
    pixels: Pixels,
    columns: int | None = None,
    labels: Sequence[str] | None = None,
    *,
    heads: Sequence[str] = (),
    cell: int = 96,
) -> np.ndarray:
    """All pictures on one sheet, row by row; names stand above columns of one name, else under every picture.

    pixels: uint8 (B, H, W, C); columns: None takes a square; heads: texts above the columns, so that names
    stand below; cell: pictures smaller than this many pixels are enlarged by a whole factor, pixel by pixel.
    Returns uint8 (height, width, 3).
    """
    pictures = [to_pil(p).convert("RGB") for p in np.asarray(pixels)]
    columns = max(1, min(columns or math.ceil(math.sqrt(len(pictures))), len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    factor = max(1, cell // max(pictures[0].size))
    width, height = pictures[0].width * factor, pictures[0].height * factor
    named = () if heads else _column_heads(labels, columns)
    heads = heads or named
    font_size = min(max(12, width // 7), 24)
    line = round(font_size * 1.5)
    above, below = line if heads else 0, line if labels and not named else 0
    step_x, step_y = width + _GAP, height + below + _GAP
    sheet = Image.new("RGB", (columns * step_x + _GAP, above + rows * step_y + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, picture in enumerate(pictures):
        x, y = _GAP + index % columns * step_x, _GAP + above + index // columns * step_y
        sheet.paste(picture.resize((width, height), Image.Resampling.NEAREST), (x, y))
        if labels and not named:
            _write(draw, labels[index], (x, y + height), (width, below), font_size)
    for column, head in enumerate(heads):
        _write(draw, head, (_GAP + column * step_x, 0), (width, above + _GAP), font_size)
    return np.asarray(sheet)


def _column_heads(labels: Sequence[str] | None, columns: int) -> list[str]:
    """One name a column where all pictures below share it; nothing where some column mixes names."""
    if not labels or len(labels) <= columns:
        return []
    mixed = any(name != labels[index % columns] for index, name in enumerate(labels))
    return [] if mixed else list(labels[:columns])


def _write(
    draw: ImageDraw.ImageDraw, text: str, at: tuple[int, int], box: tuple[int, int], size: int
) -> None:
    """Text in the middle of a box, made smaller, then cut with an ellipsis, until it fits."""
    text = " ".join(text.split())
    while size > 10 and draw.textlength(text, ImageFont.load_default(size)) > box[0]:
        size -= 1
    font = ImageFont.load_default(size)
    shown = text
    while len(text) > 1 and draw.textlength(shown, font) > box[0]:
        text = text[:-1]
        shown = text.rstrip() + "\u2026"
    draw.text((at[0] + box[0] / 2, at[1] + box[1] / 2), shown, fill=_INK, font=font, anchor="mm")


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """Finished pictures in the order of their ids."""

    pixels: Tensor
    """uint8 (B, H, W, C) on the CPU."""
    labels: Tensor | None
    """(B,) int64; None for an unconditional model."""
    ids: tuple[int, ...]
    """Picture k of a seed is the same in every batch."""
    names: tuple[str, ...] = ()
    """The class of every picture; empty for an unconditional model."""

    def __len__(self) -> int:
        return len(self.ids)

    def pictures(self) -> list[Image.Image]:
        """The pictures one by one, for Pillow."""
        return [to_pil(p) for p in self.pixels]

    def grid(self, columns: int | None = None) -> Image.Image:
        """All pictures on one sheet, with the names of their classes."""
        return Image.fromarray(grid(self.pixels, columns, self.names or None))


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A name to write to, beside `path`, that takes its place if all goes well, else leaves nothing."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield aside
        os.replace(aside, path)
    except OSError as error:
        if error.filename in (aside, str(aside)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        aside.unlink(missing_ok=True)


def save_png(
    path: Path | str, pixels: Pixels, request: Mapping[str, Any], *, about: Mapping[str, str] | None = None
) -> None:
    """Write one picture (H, W, C) with the request that draws it, atomically.

    The text chunk "unnoise" holds the request as JSON; its seed and first picture are also chunks of their
    own, and so is every entry of `about`.
    """
    info = PngImagePlugin.PngInfo()
    info.add_text(CHUNK, json.dumps(dict(request)))
    for key, name in (("seed", "seed"), ("image", "first")):
        if name in request:
            info.add_text(key, str(request[name]))
    for key, text in (about or {}).items():
        info.add_itxt(key, text.encode(errors="backslashreplace").decode())  # names may be no UTF-8
    with written_aside(Path(path)) as aside:
        to_pil(pixels).save(aside, format="PNG", pnginfo=info)


def read_request(path: Path | str) -> dict[str, Any]:
    """The request inside a PNG of ours. ValueError when there is none."""
    try:
        with Image.open(path, formats=["PNG"]) as file:
            text = getattr(file, "text", {}).get(CHUNK)
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} is not a PNG; only PNGs written by unnoise hold a request") from None
    try:
        request = json.loads(text or "")
    except ValueError:
        request = None
    if not isinstance(request, dict):
        raise ValueError(f"{path} holds no request; only PNGs written by unnoise do")
    return request


def is_whole_png(path: Path) -> bool:
    """Whether a file is a PNG down to its last chunk; a writer that was killed leaves one that is not."""
    try:
        with open(path, "rb") as file:
            if file.read(8) != b"\x89PNG\r\n\x1a\n":
                return False
            file.seek(-len(_PNG_END), os.SEEK_END)
            return file.read() == _PNG_END
    except OSError:
        return False


def save_animation(
    path: Path | str, frames: Sequence[Pixels], *, seconds: float = 4.0, hold: float = 1.5
) -> None:
    """Write pictures (H, W, C) as an endless animation, atomically: .gif, .webp (lossless) or .png by suffix.

    `seconds` is the time from the first frame to the last, which then stays for `hold` seconds.
    """
    path = Path(path)
    formats = {".gif": ("GIF", {}), ".webp": ("WEBP", {"lossless": True}), ".png": ("PNG", {})}
    if path.suffix.lower() not in formats:
        raise ValueError(
            f"{path}: animations are written as {', '.join(formats)}; choose one of these endings"
        )
    kind, options = formats[path.suffix.lower()]
    pictures = [to_pil(frame) for frame in frames]
    # Browsers slow frames of a GIF down to 100 ms when they are shorter than 20 ms.
    each = max(20, round(1000 * seconds / len(pictures)))
    times = [each] * (len(pictures) - 1) + [round(1000 * hold)]
    with written_aside(path) as aside:
        pictures[0].save(
            aside,
            format=kind,
            save_all=True,
            append_images=pictures[1:],
            duration=times,
            loop=0,
            **options,
        )

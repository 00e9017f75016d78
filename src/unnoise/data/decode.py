"""One encoded picture to plain 8-bit grey, RGB or RGBA: modes, depth, rotation, transparency, refusals."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from unnoise.data.crop import to_bands

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM")
"""Pillow's decoders that may run; others (EPS starts Ghostscript) never do."""
SUFFIXES = frozenset(
    ".png .apng .jpg .jpeg .jpe .jfif .webp .bmp .dib .tif .tiff .gif .ppm .pgm .pbm .pnm".split()
)
PILLOW_LIMIT = 178_956_970
"""Pixels at which Pillow itself refuses a picture."""
_SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")
_KEPT = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_ORIENTATION = 0x0112
_SRGB = ImageCms.createProfile("sRGB")


class BrokenPicture(Exception):
    """A picture that cannot be used; its text is the reason, for people."""


class UnreadablePicture(BrokenPicture):
    """A picture whose bytes could not be had: another day they might."""


@dataclass(frozen=True)
class Decoding:
    """How pictures become pixels. channels: 1, 3, or with transparency 2, 4; background: (R, G, B) else."""

    channels: int
    background: tuple[int, int, int]
    max_pixels: int


@dataclass(frozen=True)
class Header:
    """What a picture's first bytes say: its sides once upright, and whether its kind cannot hold colour."""

    width: int
    height: int
    grey: bool


@contextmanager
def opened(raw: bytes | Path, max_pixels: int) -> Iterator[Image.Image]:
    """The picture with its header read and its pixel count checked, nothing decoded. Raises BrokenPicture."""
    if isinstance(raw, Path) and not raw.is_file() and raw.exists() and not raw.is_dir():
        raise BrokenPicture("a device or a pipe")  # whose end may never come
    try:
        file = open(raw, "rb") if isinstance(raw, Path) else io.BytesIO(raw)
    except OSError as error:
        raise UnreadablePicture(error.strerror or str(error)) from error
    with file:
        try:
            image = Image.open(file, formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise BrokenPicture(f"more pixels than the limit of {max_pixels:,} (data.max_pixels)") from error
        except UnidentifiedImageError as error:
            empty = not file.seek(0, io.SEEK_END)
            raise BrokenPicture("an empty file" if empty else "not a picture in any known format") from error
        except Exception as error:  # decoders raise whatever their parsing happens to run into
            raise BrokenPicture(_reason(error)) from error
        width, height = image.size
        if width * height > max_pixels:
            text = f"{width}x{height} is more than the limit of {max_pixels:,} pixels (data.max_pixels)"
            raise BrokenPicture(text)
        yield image


def header(raw: bytes | Path, decoding: Decoding) -> Header:
    """The upright sides of an encoded picture, and whether it is certainly grey, from its header alone."""
    with opened(raw, decoding.max_pixels) as image:
        try:
            turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
        except Exception:  # a damaged EXIF block does not make a picture unreadable
            turned = False
        width, height = image.size[::-1] if turned else image.size
        clear = "transparency" in image.info or image.mode == "LA"
        grey = image.mode in ("1", "L", "LA", "I", *_SIXTEEN)
        return Header(width, height, grey and not (clear and len(set(decoding.background)) > 1))


def upright(image: Image.Image, decoding: Decoding) -> Image.Image:
    """The opened picture decoded, turned as its EXIF says, in mode L, LA, RGB or RGBA; or BrokenPicture."""
    try:
        image.load()
        try:
            image = ImageOps.exif_transpose(image)
        except Exception:  # as above: the picture without its rotation is better than none
            pass
        return flatten(image, decoding)
    except MemoryError:
        raise
    except BrokenPicture:
        raise
    except Exception as error:
        raise BrokenPicture(_reason(error)) from error


def levels_of(image: Image.Image) -> np.ndarray:
    """The levels (H, W) uint8 of an opened picture of 8 bits or less, as they are; or BrokenPicture."""
    try:
        return np.array(image, np.uint8)
    except Exception as error:
        raise BrokenPicture(_reason(error)) from error


def in_srgb(image: Image.Image) -> Image.Image:
    """The opened picture with the colours of its ICC profile in sRGB; itself where it has no usable one."""
    if not image.info.get("icc_profile"):
        return image
    try:
        return _converted(image, ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"])))
    except MemoryError:
        raise
    except Exception:  # a damaged profile does not make a picture unreadable; damaged pixels show later
        return image


def _converted(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    """The picture in sRGB, its transparency and its EXIF kept."""
    exif = image.getexif()
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    clear = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    bare = image.convert({"LA": "L", "RGBA": "RGB"}.get(image.mode, image.mode))
    wanted = "L" if bare.mode == "L" else "RGB"
    converted = ImageCms.profileToProfile(bare, profile, _SRGB, outputMode=wanted)
    assert converted is not None, "only a conversion in place gives none back"
    if clear is not None:
        converted.putalpha(clear)
    if exif:
        converted.info["exif"] = exif.tobytes()
    return converted


def flatten(image: Image.Image, decoding: Decoding) -> Image.Image:
    """Any mode to the wanted channels: 16 bits scaled to 8, transparency over the background unless kept."""
    if image.mode in (*_SIXTEEN, "I"):
        image = _eight_bits(image)
    elif image.mode == "F":
        raise BrokenPicture("float pixels, whose range is unknown; convert it to 8 or 16 bits")
    elif image.mode == "1":
        image = image.convert("L")
    clear = "transparency" in image.info or image.mode in ("LA", "La", "RGBA", "RGBa", "PA")
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGBA" if clear else "RGB")
    if decoding.channels in (2, 4):
        return image.convert("RGBA").convert(_KEPT[decoding.channels])
    if clear:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, decoding.background)
        image = Image.alpha_composite(ground, image).convert("RGB")
    return image.convert(_KEPT[decoding.channels])


def from_pixels(pixels: np.ndarray, decoding: Decoding) -> list[Image.Image]:
    """Pixels (H, W, C) as Pillow pictures with the wanted channels: one, or one a channel beyond four."""
    bands = to_bands(pixels)
    return bands if pixels.shape[2] == decoding.channels else [flatten(bands[0], decoding)]


@contextmanager
def quiet() -> Iterator[None]:
    """Holds back Pillow's warnings, in all threads: sizes are checked here, damaged EXIF is tolerated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _eight_bits(image: Image.Image) -> Image.Image:
    """round(v * 255 / 65535): 16-bit levels scaled, not clipped."""
    levels = np.asarray(image).astype(np.int64)
    if levels.min() < 0 or levels.max() > 65535:
        raise BrokenPicture("32-bit levels beyond 0..65535; convert it to 8 or 16 bits")
    return Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:200]

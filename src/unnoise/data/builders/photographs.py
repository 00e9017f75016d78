"""Patches of photographs that Debian packages hold, split by photograph."""

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from unnoise.data import cache
from unnoise.data.builders import debian, writing
from unnoise.data.builders.debian import Terms
from unnoise.data.builders.writing import Built, Made, Progress
from unnoise.data.decode import PILLOW_LIMIT, BrokenPicture, Decoding, opened, upright
from unnoise.data.order import draws

SIZES = (32, 512)
"""Smallest and largest side of a patch."""
HELD_OUT = 4
"""One photograph in so many is held out."""
_SCALES = (1, 2, 4)
"""A photograph is cut as it is, and averaged over squares of two and of four pixels."""
_FLAT = 3.0
"""Patches whose grey levels differ less than this from the next pixel, on average over rows and columns, are
left out: skies and blurred grounds teach nothing."""


@dataclass(frozen=True)
class Shelf:
    """Where a package keeps its photographs. `names` are theirs; the drawings beside them are left."""

    package: str
    folder: str
    names: tuple[str, ...]


SHELVES = (
    Shelf("mate-backgrounds", "usr/share/backgrounds/mate", ("nature/*.jpg",)),
    Shelf(
        "plasma-workspace-wallpapers",
        "usr/share/wallpapers",
        tuple(
            f"{name}/contents/images/*"
            for name in """BytheWater ColdRipple ColorfulCups DarkestHour EveningGlow FallenLeaf Grey Kite
            OneStandsOut Path summer_1am""".split()
        ),
    ),
    Shelf(
        "opencv-doc",
        "usr/share/doc/opencv-doc/examples/data",
        tuple(
            """aero1.jpg aloeL.jpg apple.jpg baboon.jpg board.jpg building.jpg butterfly.jpg chicky_512.png
            ela_original.jpg fruits.jpg graf1.png home.jpg leuvenA.jpg orange.jpg rubberwhale1.png
            squirrel_cls.jpg stuff.jpg""".split()
        ),
    ),
)


@dataclass(frozen=True)
class Photograph:
    """A picture with its terms. name: package and file, the same wherever it was unpacked."""

    name: str
    path: Path
    terms: Terms


def build_photographs(
    out: Path,
    *,
    size: int = 128,
    patches: int = 400,
    source: Path | None = None,
    on_progress: Progress | None = None,
) -> Built:
    """Writes OUT/train and OUT/test: RGB patches as PNG, and a metadata.jsonl each with licence and holder.

    patches: at most, of one photograph. source: a folder with the unpacked packages, or /; None has apt-get
    fetch them into the cache. ValueError for what is missing; a build that was stopped goes on.
    """
    least, most = SIZES
    if not least <= size <= most:
        raise ValueError(f"size={size} is outside {least}..{most}")
    if patches < 1:
        raise ValueError(f"patches={patches} is less than 1")
    roots = _roots(source)
    found = [photograph for shelf in SHELVES for photograph in _photographs(shelf, roots[shelf.package])]
    settings = {
        "what": "photographs",
        "size": size,
        "patches": patches,
        "content": {each.name: _digest(each.path) for each in found},
        "renderer": f"Pillow {PIL.__version__}",
    }
    writing.begin(out, settings)
    built = Built(out)
    jobs = [made for each in found for made in _jobs(each, size, patches, built)]
    writing.write(out, jobs, len(jobs), "package", built, on_progress)
    return built


def held_out(name: str) -> bool:
    """Whether a photograph is held out: a function of its name alone."""
    return hashlib.blake2b(f"photograph held out:{name}".encode(), digest_size=8).digest()[0] % HELD_OUT == 0


def _roots(source: Path | None) -> dict[str, Path]:
    names = [shelf.package for shelf in SHELVES]
    if source is None:
        return debian.fetch(cache.home(None) / "debian", names)
    found = {name: debian.find(source, name) for name in names}
    missing = [name for name, root in found.items() if root is None]
    if missing:
        raise ValueError(
            f"{source} lacks Debian's {', '.join(missing)}; unpack each to {source}/PACKAGE with: "
            "apt-get download PACKAGE && dpkg -x FILE PACKAGE"
        )
    return {name: root for name, root in found.items() if root is not None}


def _photographs(shelf: Shelf, root: Path) -> Iterator[Photograph]:
    """The photographs of a package that are there. ValueError when none is: it is another version then."""
    folder = root / shelf.folder
    paths = sorted({path for name in shelf.names for path in folder.glob(name) if _own(path)})
    if not paths:
        raise ValueError(
            f"{folder} holds none of the photographs of {shelf.package}; use Debian 12's version"
        )
    copyright_file = root / "usr" / "share" / "doc" / shelf.package / "copyright"
    text = copyright_file.read_text(encoding="utf-8", errors="replace") if copyright_file.is_file() else ""
    for path in paths:
        name = path.relative_to(folder).as_posix()
        own = _stated(path) or debian.terms(text, name)
        yield Photograph(f"{shelf.package}/{name}", path, own or Terms("not stated", "not stated"))


def _own(path: Path) -> bool:
    """Whether it is a file and no link: wallpapers have links to themselves, named as other sizes."""
    return path.is_file() and not path.is_symlink()


def _stated(path: Path) -> Terms | None:
    """What a KDE wallpaper's own metadata.json says of it."""
    try:
        facts = json.loads((path.parents[2] / "metadata.json").read_text(encoding="utf-8"))["KPlugin"]
        return Terms(str(facts["License"]), "; ".join(str(each["Name"]) for each in facts["Authors"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _jobs(photograph: Photograph, size: int, most: int, built: Built) -> Iterator[Made]:
    """The patches of a photograph: of a grid at each scale, in an order of the name alone, `most` at most."""
    package, _, file = photograph.name.partition("/")
    stem = file.rsplit(".", 1)[0].replace("/contents/images/", "-").replace("/", "-")
    try:
        places = _places(photograph.path, size)
    except BrokenPicture as error:
        built.left_out[f"{photograph.name}: {error}"] = 1
        return
    order = np.argsort(draws(0, f"patches of {photograph.name}", np.arange(len(places))), kind="stable")
    split = "test" if held_out(photograph.name) else "train"
    for scale, left, top in [places[k] for k in sorted(order[:most])]:
        facts = {
            "photograph": photograph.name,
            "package": package,
            "scale": scale,
            "left": left,
            "top": top,
            "license": photograph.terms.license,
            "holder": photograph.terms.holder,
        }
        name = f"{package}/{stem}-{scale}-{left:05d}-{top:05d}.png"
        yield Made(split, name, partial(_cut, photograph.path, size, scale, left, top), facts)


def _places(path: Path, size: int) -> list[tuple[int, int, int]]:
    """(scale, left, top) of the patches that are not flat."""
    found = []
    for scale in _SCALES:
        pixels = _scaled(path, scale)
        high, wide = pixels.shape[0] // size, pixels.shape[1] // size
        grey = pixels[: high * size, : wide * size].astype(np.float32).mean(axis=2)
        tiles = grey.reshape(high, size, wide, size)
        down, across = np.abs(np.diff(tiles, axis=1)), np.abs(np.diff(tiles, axis=3))
        spread = (down.mean(axis=(1, 3)) + across.mean(axis=(1, 3))) / 2
        found += [(scale, int(x) * size, int(y) * size) for y, x in np.argwhere(spread >= _FLAT)]
    return found


def _cut(path: Path, size: int, scale: int, left: int, top: int) -> bytes:
    patch = _scaled(path, scale)[top : top + size, left : left + size]
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(patch)).save(file, "PNG")
    return file.getvalue()


@lru_cache(maxsize=2 * len(_SCALES))
def _scaled(path: Path, scale: int) -> np.ndarray:
    """A photograph as RGB, averaged over squares of `scale` pixels; kept because its patches follow."""
    with opened(path, PILLOW_LIMIT) as image:
        return np.asarray(upright(image, Decoding(3, (255, 255, 255), PILLOW_LIMIT)).reduce(scale))


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]

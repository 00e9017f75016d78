"""The sets of emoji: which package holds each, under which licence, and how its pictures are found in it."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from unnoise.data.builders import svg
from unnoise.data.builders.emoji_names import Dictionary, code
from unnoise.data.builders.packages import read_json
from unnoise.data.crop import halve
from unnoise.data.decode import opened

Draw = Callable[[int], bytes]
"""Side in pixels -> a square PNG, RGBA. Raises svg.BadDrawing or decode.BrokenPicture."""
_PIXELS = 2**22
"""Of a stored picture at most."""


@dataclass(frozen=True)
class EmojiSet:
    """One style: its name in captions and folders, the npm package and version, and the pictures' licence."""

    style: str
    package: str
    version: str
    license: str
    credit: str


DICTIONARY = EmojiSet("openmoji", "openmoji", "17.0.0", "CC-BY-SA-4.0", "OpenMoji")
"""Where captions come from; its pictures are drawn only on request."""
SETS = (
    EmojiSet("noto", "@iconify-json/noto", "1.2.9", "Apache-2.0", "Google, Noto Emoji"),
    EmojiSet("twemoji", "@iconify-json/twemoji", "1.2.5", "CC-BY-4.0", "Twitter and contributors, Twemoji"),
    EmojiSet("fluent 3d", "@lobehub/fluent-emoji-3d", "1.1.0", "MIT", "Microsoft, Fluent Emoji"),
    EmojiSet("fluent gradient", "@iconify-json/fluent-emoji", "1.2.7", "MIT", "Microsoft, Fluent Emoji"),
    EmojiSet("fluent flat", "@iconify-json/fluent-emoji-flat", "1.2.6", "MIT", "Microsoft, Fluent Emoji"),
    EmojiSet("noto v1", "@iconify-json/noto-v1", "1.2.5", "Apache-2.0", "Google, Noto Emoji"),
    EmojiSet("emojione", "@iconify-json/emojione", "1.2.3", "CC-BY-4.0", "EmojiOne 2"),
    EmojiSet("fxemoji", "@iconify-json/fxemoji", "1.2.2", "Apache-2.0", "Mozilla, FxEmojis"),
)


def read_dictionary(packages: dict[str, Path]) -> Dictionary:
    """OpenMoji's words, and the names of every set that also gives codes."""
    table = read_json(packages[DICTIONARY.package] / "data" / "openmoji.json", list)
    dictionary = Dictionary(table)
    for each in SETS:
        chars = packages[each.package] / "chars.json"
        if chars.is_file():
            named = {name: code(own) for own, name in read_json(chars).items()}
            icons = read_json(packages[each.package] / "icons.json")
            same = {
                alias: value["parent"] for alias, value in icons.get("aliases", {}).items() if len(value) == 1
            }
            dictionary.teach(named | {alias: named[name] for alias, name in same.items() if name in named})
    return dictionary


def pictures(
    each: EmojiSet, package: Path, dictionary: Dictionary, renderer: Any
) -> Iterator[tuple[str, str, Draw]]:
    """(name in the set, code or "", draw) of each picture of a set, in an order that its names decide."""
    if each is DICTIONARY:
        for path in sorted((package / "color" / "svg").glob("*.svg")):
            yield path.stem, code(path.stem), partial(_draw_file, renderer, path)
    elif (package / "assets").is_dir():
        for path in sorted((package / "assets").glob("*.webp")):
            yield path.stem, code(path.stem), partial(_shrink, path)
    else:
        yield from _icons(package, dictionary, renderer)


def _icons(package: Path, dictionary: Dictionary, renderer: Any) -> Iterator[tuple[str, str, Draw]]:
    """The icons of a set in Iconify's form."""
    icons = read_json(package / "icons.json")
    chars = {name: code(own) for own, name in read_json(package / "chars.json").items()}
    other: dict[str, list[str]] = {}
    for alias, value in icons.get("aliases", {}).items():
        if len(value) == 1:  # else it is turned or mirrored: another picture
            other.setdefault(value["parent"], []).append(alias)
    sides = {key: icons.get(key, 16 if key in ("width", "height") else 0) for key in _BOX}
    for name, icon in sorted(icons["icons"].items()):
        if icon.get("hidden"):  # withdrawn by the set's authors
            continue
        own = chars.get(name, "") if chars else dictionary.code_of([name, *other.get(name, [])]) or ""
        box = [float(icon.get(key, sides[key])) for key in _BOX]
        yield name, own, partial(_draw, renderer, svg.document(icon["body"], *box))


_BOX = ("left", "top", "width", "height")


def _draw(renderer: Any, drawing: str, size: int) -> bytes:
    return svg.render(renderer, drawing, size)


def _draw_file(renderer: Any, path: Path, size: int) -> bytes:
    return svg.render(renderer, path.read_text(encoding="utf-8"), size)


def _shrink(path: Path, size: int) -> bytes:
    """A stored picture at another side: its colours are averaged by how much they cover."""
    with opened(path, _PIXELS) as image:
        covered = halve(image.convert("RGBA").convert("RGBa"), size)
        if covered.size != (size, size):
            covered = covered.resize((size, size), Image.Resampling.BICUBIC)
        file = io.BytesIO()
        covered.convert("RGBA").save(file, "PNG")
    return file.getvalue()

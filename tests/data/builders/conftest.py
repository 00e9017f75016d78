"""Small packages in the layout of the real ones, and a stand-in for the renderer where there is none."""

import importlib.util
import io
import json
import re
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unnoise.data.builders.emoji_sets import SETS

SQUARE = '<path fill="#{}" d="M2 2h12v12H2z"/>'
"""Body of an icon of 16 x 16: a square with an edge of two pixels around it."""


def icon(colour: str, **more: Any) -> dict[str, Any]:
    return {"body": SQUARE.format(colour), **more}


def word(code: str, annotation: str, group: str = "objects", base: str = "") -> dict[str, str]:
    return {
        "hexcode": code, "annotation": annotation, "tags": "one, two", "group": group, "subgroups": "tool",
        "skintone_base_hexcode": base,
    }  # fmt: skip


WORDS = [
    word("2702", "scissors"),
    word("1F528", "hammer"),
    word("1F44D", "thumbs up", "people-body"),
    word("1F44D-1F3FF", "thumbs up: dark skin tone", "people-body", "1F44D"),
    word("1F1E6-1F1FC", "flag: Aruba", "flags"),
    word("0031-FE0F-20E3", "keycap: 1", "symbols"),
    *(word(f"1F6{k:02X}", f"thing {k}", "travel-places") for k in range(40)),
]


def put_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def put_icons(
    folder: Path, icons: Mapping[str, Any], chars: Mapping[str, str], aliases: Mapping[str, Any] | None = None
) -> None:
    put_json(folder / "icons.json", {"icons": icons, "aliases": aliases or {}, "width": 16, "height": 16})
    put_json(folder / "chars.json", chars)


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """node_modules with every package, a few pictures each."""
    home = tmp_path / "npm" / "node_modules"
    for each in SETS:
        put_json(home / each.package / "package.json", {"name": each.package, "version": "1.0.0"})
    put_json(home / "openmoji" / "package.json", {"version": "1.0.0"})
    put_json(home / "openmoji" / "data" / "openmoji.json", WORDS)
    (home / "openmoji" / "color" / "svg").mkdir(parents=True)
    drawing = f'<svg viewBox="0 0 16 16" xmlns="http://www.w3.org/2000/svg">{SQUARE.format("123456")}</svg>'
    (home / "openmoji" / "color" / "svg" / "2702.svg").write_text(drawing)
    things = {f"thing-{k}": icon(f"{k:02x}4080") for k in range(40)}
    put_icons(
        home / "@iconify-json/noto",
        {"cutters": icon("ff0000"), "thumbs-up": icon("00ff00"), "thumbs-up-dark-skin-tone": icon("00aa00"),
         "old": icon("000000", hidden=True), **things},
        {"2702-fe0f": "cutters", "1f44d": "thumbs-up", "1f44d-1f3ff": "thumbs-up-dark-skin-tone",
         **{f"1f6{k:02x}": f"thing-{k}" for k in range(40)}},
        {"snips": {"parent": "cutters"}, "left-thumb": {"parent": "thumbs-up", "hFlip": True}},
    )  # fmt: skip
    put_icons(home / "@iconify-json/twemoji", {"scissors": icon("0000ff", width=32)}, {"2702": "scissors"})
    put_icons(home / "@iconify-json/fluent-emoji", {"snips": icon("aaaaaa"), "nonsense": icon("bbbbbb")}, {})
    put_icons(home / "@iconify-json/fluent-emoji-flat", {"hammer": icon("cccccc")}, {"1f528": "hammer"})
    put_icons(home / "@iconify-json/noto-v1", {"thumbs-up-dark": icon("dddddd"), "1": icon("dddddd")}, {})
    put_icons(home / "@iconify-json/emojione", {"flag-for-aruba": icon("eeeeee")}, {})
    put_icons(home / "@iconify-json/fxemoji", {"hammer": icon("101010"), "Hammer": icon("202020")}, {})
    stored = home / "@lobehub/fluent-emoji-3d" / "assets" / "2702-fe0f.webp"
    stored.parent.mkdir()
    halves = Image.new("RGBA", (64, 64), (255, 0, 0, 255))
    halves.paste((0, 0, 255, 0), (0, 0, 32, 64))  # blue that cannot be seen
    halves.save(stored, lossless=True, exact=True)
    return home.parent


def _stand_in(svg_string: str, width: int, height: int, skip_system_fonts: bool) -> bytes:
    """Draws the first fill that a drawing names as SQUARE does, in a box of 16."""
    assert skip_system_fonts
    image = Image.new("RGBA", (width, height))
    colour = re.search(r'fill="(#\w+)"', svg_string)
    if colour:
        image.paste(colour[1], (width // 8, height // 8, width - width // 8, height - height // 8))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The renderer itself where it is installed, else the stand-in."""
    if importlib.util.find_spec("resvg_py") is None:
        module = types.SimpleNamespace(svg_to_bytes=_stand_in, __version__="stand-in")
        monkeypatch.setitem(sys.modules, "resvg_py", module)

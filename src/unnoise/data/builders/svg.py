"""SVG drawings of strangers to pixels: only plain shapes, no files, no text, no entities, bounded work."""

import importlib
import re
from collections.abc import Mapping
from typing import Any
from xml.parsers import expat

_DRAWN = frozenset(
    """svg g path circle ellipse rect line polyline polygon use symbol defs clipPath mask stop title desc
    linearGradient radialGradient filter feFlood feGaussianBlur feBlend feColorMatrix feOffset feComposite
    feMerge feMergeNode feMorphology""".split()
)
"""Elements that may occur. Others read files (image, feImage), run text layout or scripts, or hold styles."""
_BYTES, _ELEMENTS, _DEPTH = 2**21, 20_000, 100
_OUTWARD = re.compile(r"url\(\s*['\"]?\s*(?!#)", re.IGNORECASE)


class BadDrawing(ValueError):
    """A drawing that is not to be rendered; its text is the reason."""


def load_renderer() -> Any:
    """The module resvg_py (extra `build`). ValueError, with the way out, when it is missing."""
    try:
        return importlib.import_module("resvg_py")
    except ImportError as error:
        raise ValueError(
            "drawings need the package resvg-py; install it with: pip install 'unnoise[build]'"
        ) from error


def document(body: str, left: float, top: float, width: float, height: float) -> str:
    """A whole SVG document of an icon's body; the icon is centred in a square."""
    side = max(width, height)
    left, top = left - (side - width) / 2, top - (side - height) / 2
    box = f"{left:g} {top:g} {side:g} {side:g}"
    start = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'{start} viewBox="{box}">{body}</svg>'


def render(renderer: Any, drawing: str, size: int) -> bytes:
    """The drawing, of a square box, as a PNG, RGBA, size x size. Raises BadDrawing."""
    check(drawing)
    try:
        return bytes(
            renderer.svg_to_bytes(svg_string=drawing, width=size, height=size, skip_system_fonts=True)
        )
    except ValueError as error:
        raise BadDrawing(f"cannot be rendered ({error})") from error


def check(drawing: str) -> None:
    """Refuses what reaches outside the drawing or grows without bound. Raises BadDrawing."""
    if len(drawing) > _BYTES:
        raise BadDrawing(f"{len(drawing):,} characters are over the limit of {_BYTES:,}")
    _Checker().run(drawing)


class _Checker:
    """Walks a drawing; counts its elements as they are when every `use` is followed."""

    def __init__(self) -> None:
        self.open: list[str | None] = []
        self.total = 0
        self.sizes: dict[str | None, int] = {}
        """id (None: the whole) -> elements inside."""
        self.uses: dict[str | None, list[str]] = {}

    def run(self, drawing: str) -> None:
        parser = expat.ParserCreate()
        parser.StartElementHandler = self.start
        parser.EndElementHandler = self.end
        parser.EntityDeclHandler = parser.StartDoctypeDeclHandler = self.doctype
        try:
            parser.Parse(drawing, True)
        except expat.ExpatError as error:
            raise BadDrawing(f"not well-formed ({error})") from error
        if self.followed(None, ()) > _ELEMENTS:
            raise BadDrawing(f"more than {_ELEMENTS:,} elements once each use is followed")

    def doctype(self, *_: Any) -> None:
        raise BadDrawing("it declares a document type or entities")

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        self.total += 1
        if name not in _DRAWN:
            raise BadDrawing(f"<{name}> is not among the plain shapes")
        if len(self.open) >= _DEPTH or self.total > _ELEMENTS:
            raise BadDrawing(f"nested deeper than {_DEPTH}, or more than {_ELEMENTS:,} elements")
        self.open.append(attributes.get("id"))
        inside = {None, *self.open}
        for key in inside:
            self.sizes[key] = self.sizes.get(key, 0) + 1
        for attribute, value in attributes.items():
            if attribute.startswith("on") or _OUTWARD.search(value):
                raise BadDrawing(f"{attribute}={value[:40]!r} reaches outside the drawing")
            if attribute.split(":")[-1] != "href":
                continue
            if not value.startswith("#"):
                raise BadDrawing(f"{attribute}={value[:40]!r} reaches outside the drawing")
            for key in inside:
                self.uses.setdefault(key, []).append(value[1:])

    def end(self, name: str) -> None:
        self.open.pop()

    def followed(self, key: str | None, above: tuple[str | None, ...]) -> int:
        """Elements drawn for `key`, with those of what it uses; stops counting beyond the limit."""
        if key in above:
            raise BadDrawing(f"#{key} uses itself")
        count = self.sizes.get(key, 0)
        for used in self.uses.get(key, ()):
            if count > _ELEMENTS:
                break
            count += self.followed(used, (*above, key))
        return count

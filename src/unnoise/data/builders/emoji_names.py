"""What an emoji is: its code points in one spelling, the object it shows, its words in OpenMoji's table."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

TONES = {
    "1f3fb": "light",
    "1f3fc": "medium-light",
    "1f3fd": "medium",
    "1f3fe": "medium-dark",
    "1f3ff": "dark",
}
_PEOPLE = {"1f468": "1f9d1", "1f469": "1f9d1"}
"""Man and woman to person."""
_ADDED = {"2640", "2642", "27a1"}
"""Female, male, and facing right, when joined to something."""
_JOINER, _AS_PICTURE = "-200d-", "fe0f"
_SYMBOLS = (range(0x2190, 0x2C00), range(0x1F000, 0x1FB00))
"""Blocks of Unicode whose characters sets name by their Unicode names."""


@dataclass(frozen=True)
class Words:
    """What is said of an emoji."""

    annotation: str
    tags: tuple[str, ...]
    category: str
    subcategory: str


def code(text: str) -> str:
    """Code points in one spelling: lower case, four digits at least, joined by "-", no variation selector."""
    parts = re.split(r"[-_ ]", text.lower())
    return "-".join(part.zfill(4) for part in parts if part and part != _AS_PICTURE)


def plain_object(own: str, bases: Mapping[str, str]) -> str:
    """The object that an emoji shows, by code: without skin tones, gender and direction.

    bases: code -> the emoji it is a variant of, where the code alone does not tell. What is held out is held
    out by object, so that a thumb of one skin tone is not learnt from the same thumb of another.
    """
    pieces = []
    for piece in bases.get(own, own).split(_JOINER):
        plain = "-".join(part for part in piece.split("-") if part not in TONES)
        pieces.append(_PEOPLE.get(plain, plain) or piece)
    return _JOINER.join([piece for piece in pieces if piece not in _ADDED] or pieces)


class Dictionary:
    """Codes to words, and the names that icon sets use to codes."""

    def __init__(self, table: Iterable[Mapping[str, Any]]) -> None:
        self.words: dict[str, Words] = {}
        self.bases: dict[str, str] = {}
        self.names: dict[str, str] = {}
        for row in table:
            if row["group"] == "extras-openmoji":  # drawings of that set alone, with no character
                continue
            own = code(row["hexcode"])
            tags = tuple(tag.strip() for tag in row["tags"].split(",") if tag.strip())
            self.words[own] = Words(row["annotation"], tags, row["group"], row["subgroups"])
            if row["skintone_base_hexcode"]:
                self.bases[own] = code(row["skintone_base_hexcode"])
            self.names.setdefault(_squeezed(row["annotation"]), own)
        for block in _SYMBOLS:
            for point in block:
                name = unicodedata.name(chr(point), "")
                if name:
                    self.names.setdefault(_squeezed(name), f"{point:04x}")

    def teach(self, names: Mapping[str, str]) -> None:
        """Adds names of an icon set, name -> code, where they are not known yet."""
        for name, own in names.items():
            self.names.setdefault(_squeezed(name), own)

    def code_of(self, names: Iterable[str]) -> str | None:
        """The code of an icon by the first of its names that is known."""
        for name in names:
            squeezed = _squeezed(name)
            for spelling in _spellings(squeezed):
                if spelling in self.names:
                    return self.names[spelling]
        return None

    def object_of(self, own: str) -> str:
        """The object that an emoji shows (`plain_object`)."""
        return plain_object(own, self.bases)

    def words_of(self, own: str) -> Words | None:
        """The words of an emoji; those of its base with the skin tone said, where only that is known."""
        if own in self.words:
            return self.words[own]
        parts = own.split("-")
        base = self.words.get("-".join(part for part in parts if part not in TONES))
        tones = [TONES[part] for part in parts if part in TONES]
        if base is None or not tones:
            return None
        said = ", ".join(f"{tone} skin tone" for tone in tones)
        return Words(f"{base.annotation}: {said}", base.tags, base.category, base.subcategory)


def _squeezed(name: str) -> str:
    """A name without accents, case, spaces and signs."""
    plain = unicodedata.normalize("NFKD", name.lower()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]", "", plain)


def _spellings(name: str) -> Iterable[str]:
    """Ways in which the sets write the same name."""
    yield name
    flag = name.replace("flagforflag", "flag").replace("flagfor", "flag")
    yield from (flag, f"flag{name}", f"keycap{name}", name.removesuffix("emoji"))
    for tone in ("mediumdark", "mediumlight", "medium", "dark", "light"):
        if name.endswith(tone):
            yield name + "skintone"
            return

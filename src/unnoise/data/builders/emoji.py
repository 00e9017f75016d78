"""The emoji: about 22,000 pictures of the same objects in eight styles, captioned, split by object."""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import PIL

from unnoise.data import cache
from unnoise.data.builders import packages, svg, writing
from unnoise.data.builders.emoji_sets import DICTIONARY, SETS, EmojiSet, pictures, read_dictionary
from unnoise.data.builders.writing import Built, Made, Progress

SIZES = (16, 256)
"""Smallest and largest side; fluent 3d is stored at 256."""
HELD_OUT = 10
"""One object in so many is held out."""


def build_emoji(
    out: Path,
    *,
    size: int = 64,
    source: Path | None = None,
    openmoji: bool = False,
    on_progress: Progress | None = None,
) -> Built:
    """Writes OUT/train and OUT/test: style/code.png, RGBA, and a metadata.jsonl each.

    source: a folder with the npm packages; None has npm fetch them into the cache. openmoji: draw that set
    too (CC BY-SA). ValueError for what is missing; a build that was stopped goes on.
    """
    least, most = SIZES
    if not least <= size <= most:
        raise ValueError(f"size={size} is outside {least}..{most}, the largest side of the stored pictures")
    renderer = svg.load_renderer()
    drawn = (*SETS, *((DICTIONARY,) if openmoji else ()))
    wanted = {each.package: each.version for each in (*SETS, DICTIONARY)}
    if source is None:
        found = packages.fetch(cache.home(None) / "npm-emoji", wanted)
    else:
        found = packages.find(source, wanted)
    versions = {name: packages.version(path) for name, path in found.items()}
    settings = {
        "what": "emoji",
        "size": size,
        "styles": [each.style for each in drawn],
        "packages": versions,
        "renderer": f"resvg-py {renderer.__version__}, Pillow {PIL.__version__}",
    }
    writing.begin(out, settings)
    built = Built(out)
    jobs = list(_jobs(drawn, found, renderer, size, built))
    writing.write(out, jobs, len(jobs), "style", built, on_progress)
    writing.place(out / "CREDITS.md", _credits(drawn, versions).encode())
    return built


def held_out(plain: str) -> bool:
    """Whether an object is held out: a function of its code alone, the same in every build."""
    return hashlib.blake2b(f"emoji held out:{plain}".encode(), digest_size=8).digest()[0] % HELD_OUT == 0


def caption(style: str, annotation: str, tags: tuple[str, ...]) -> str:
    """Such as "a noto emoji of grinning face, cheerful, happy"."""
    words = dict.fromkeys([annotation, *tags])
    article = "an" if style[0] in "aeio" else "a"
    return f"{article} {style} emoji of {', '.join(words)}"


def _jobs(
    drawn: tuple[EmojiSet, ...], found: dict[str, Path], renderer: Any, size: int, built: Built
) -> Iterator[Made]:
    """The pictures to make, each code once a style; counts those whose object is unknown."""
    dictionary = read_dictionary(found)
    for each in drawn:
        seen = set()
        for _, own, draw in pictures(each, found[each.package], dictionary, renderer):
            words = dictionary.words_of(own)
            reason = "its object is not known" if words is None else "a second drawing" if own in seen else ""
            if words is None or reason:
                reason = f"{each.style}: {reason}"
                built.left_out[reason] = built.left_out.get(reason, 0) + 1
                continue
            seen.add(own)
            plain = dictionary.object_of(own)
            folder = each.style.replace(" ", "-")
            facts = {
                "text": caption(each.style, words.annotation, words.tags),
                "label": words.category,
                "category": words.category,
                "subcategory": words.subcategory,
                "style": each.style,
                "annotation": words.annotation,
                "code_point": own.upper(),
                "object": plain.upper(),
                "license": each.license,
            }
            split = "test" if held_out(plain) else "train"
            yield Made(split, f"{folder}/{own}.png", partial(draw, size), facts)


def _credits(drawn: tuple[EmojiSet, ...], versions: dict[str, str]) -> str:
    lines = ["# Where these pictures come from", ""]
    for each in drawn:
        lines.append(
            f"- {each.style}: {each.credit}, {each.license}; npm {each.package} {versions[each.package]}"
        )
    said = (
        f"{DICTIONARY.credit}, {DICTIONARY.license}; npm {DICTIONARY.package} {versions[DICTIONARY.package]}"
    )
    lines.append(f"- annotations and tags in the captions: {said}")
    return "\n".join(lines) + "\n"

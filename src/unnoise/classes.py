"""Class names as people type them."""

import difflib
import re
from collections.abc import Sequence


def slug(name: str) -> str:
    """Lower case, everything but letters and digits as single hyphens: "T-shirt/top" -> "t-shirt-top"."""
    return re.sub(r"[\W_]+", "-", name.lower()).strip("-")


def find_class(wanted: str, classes: Sequence[str]) -> int:
    """Index of a class given its name, its slug, a beginning that only one name has, or the index itself.

    Names come first: among classes called "2", "4", "8", the text "2" is a name. ValueError lists them.
    """
    exactly = _whole_name(wanted, classes)
    if exactly is not None:
        return exactly
    if re.fullmatch(r"\d+", wanted.strip()):
        if int(wanted) < len(classes):
            return int(wanted)
        raise ValueError(
            f"class {wanted} does not exist; use 0..{len(classes) - 1}, or a name: {_some(classes)}"
        )
    begin = slug(wanted)
    found = [index for index, name in enumerate(classes) if begin and slug(name).startswith(begin)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"class {wanted!r} may be {_some([classes[i] for i in found], 'or')}; write more of it"
        )
    slugs = {slug(name): name for name in classes}
    close = [slugs[s] for s in difflib.get_close_matches(begin, list(slugs), n=3, cutoff=0.5)]
    hint = f"did you mean {_some(close, 'or')}? " if close else ""
    raise ValueError(f"class {wanted!r} is unknown; {hint}The model knows {_some(classes)}")


def match_classes(theirs: Sequence[str], ours: Sequence[str], *, whose: str) -> list[int]:
    """Index among our classes of each of theirs: by name or slug, a number that is no name by index.

    ValueError names the first that is none of ours; `whose` they are. Beginnings of names do not count:
    nobody typed them.
    """
    found = []
    for name in theirs:
        index = _whole_name(name, ours)
        if index is None and re.fullmatch(r"\d+", name) and int(name) < len(ours):
            index = int(name)
        if index is None:
            raise ValueError(f"class {name!r} of {whose} is none of the model's, which knows {_some(ours)}")
        found.append(index)
    return found


def _whole_name(wanted: str, classes: Sequence[str]) -> int | None:
    """Index of the class that is called so, letter by letter if possible, else but for case or as a slug."""
    for key in (str, str.lower, slug):
        found = [index for index, name in enumerate(classes) if key(name) == key(wanted) != ""]
        if len(found) == 1:
            return found[0]
    return None


def _some(names: Sequence[str], last: str = "and", most: int = 20) -> str:
    """The names, or the first of them and how many there are."""
    if len(names) > most:
        return f"{', '.join(names[:most])} ... ({len(names)} classes)"
    return f" {last} ".join(filter(None, (", ".join(names[:-1]), names[-1])))

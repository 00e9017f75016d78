"""Scenes of emoji, with their boxes and semantic maps: data for models that are told layouts or maps.

    unnoise build emoji emoji64 --size 64
    python scripts/compose_scenes.py emoji64/train scenes -n 4000
    unnoise train latent-layout-64 --first-stage KL --data scenes/pictures --set data.boxes=scenes/boxes.json

Every scene is one to three emoji of one style, each in its own place, on white. A box is what an emoji's
opaque pixels span, its class the emoji's category; a map's class is 0 for the background, else 1 + category.
Scene k depends on the seed and k alone.
"""

import argparse
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = 64
SIDES = (20, 40)
"""Of an emoji in a scene, pixels."""
TRIES = 50


def emoji_of(folder: Path) -> tuple[list[str], dict[str, list[dict[str, Any]]]]:
    """Categories in order, and the emoji of each style."""
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    styles = defaultdict(list)
    for row in rows:
        styles[row["style"]].append(row)
    return sorted({row["category"] for row in rows}), styles


def apart(box: tuple[int, int, int, int], others: list[tuple[int, int, int, int]]) -> bool:
    """Whether a box (left, top, right, bottom) overlaps none of the others."""
    left, top, right, bottom = box
    return all(right <= a or c <= left or bottom <= b or d <= top for a, b, c, d in others)


def scene(
    folder: Path, rows: list[dict[str, Any]], categories: list[str], rng: random.Random
) -> tuple[Image.Image, Image.Image, list[tuple[int, tuple[int, int, int, int]]]]:
    """A picture, its map, and (category, box) of what is in it."""
    picture = Image.new("RGBA", (SIZE, SIZE), "white")
    levels = np.zeros((SIZE, SIZE), np.uint8)
    found: list[tuple[int, tuple[int, int, int, int]]] = []
    for _ in range(rng.randint(1, 3)):
        row = rng.choice(rows)
        side = rng.randint(*SIDES)
        with Image.open(folder / row["file_name"]) as file:
            emoji = file.convert("RGBA").resize((side, side), Image.Resampling.LANCZOS)
        opaque = emoji.getchannel("A").point(lambda value: 255 * (value >= 128))
        span = opaque.getbbox()
        if span is None:
            continue
        for _ in range(TRIES):
            left, top = rng.randint(0, SIZE - side), rng.randint(0, SIZE - side)
            box = (left + span[0], top + span[1], left + span[2], top + span[3])
            if apart(box, [other for _, other in found]):
                break
        else:
            continue
        kind = categories.index(row["category"])
        picture.alpha_composite(emoji, (left, top))
        levels[top : top + side, left : left + side][np.asarray(opaque) > 0] = 1 + kind
        found.append((kind, box))
    return picture.convert("RGB"), Image.fromarray(levels), found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("emoji", type=Path, help="A folder of `unnoise build emoji`, such as OUT/train.")
    parser.add_argument("out", type=Path)
    parser.add_argument("-n", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    categories, styles = emoji_of(chosen.emoji)
    for name in ("pictures", "maps"):
        (chosen.out / name).mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for k in range(chosen.n):
        rng = random.Random(f"{chosen.seed} {k}")
        picture, levels, found = scene(chosen.emoji, styles[rng.choice(sorted(styles))], categories, rng)
        picture.save(chosen.out / "pictures" / f"{k:05d}.png")
        levels.save(chosen.out / "maps" / f"{k:05d}.png")
        images.append({"id": k, "file_name": f"{k:05d}.png", "width": SIZE, "height": SIZE})
        for kind, (left, top, right, bottom) in found:
            corner = [left, top, right - left, bottom - top]
            annotations.append({"id": len(annotations), "image_id": k, "category_id": kind, "bbox": corner})
    kinds = [{"id": number, "name": name} for number, name in enumerate(categories)]
    table = {"images": images, "annotations": annotations, "categories": kinds}
    (chosen.out / "boxes.json").write_text(json.dumps(table))
    print(
        f"{chosen.n:,} scenes with {len(annotations):,} emoji of {len(categories)} categories: {chosen.out}"
    )


if __name__ == "__main__":
    main()

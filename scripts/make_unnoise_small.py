"""Makes the pictures that `unnoise-small` learns from, and packs its weights into src/unnoise/metrics.

On Debian, in an empty folder, with Fashion-MNIST from the package dataset-fashion-mnist:

    apt-get download fonts-cantarell fonts-comfortaa fonts-crosextra-caladea fonts-crosextra-carlito \
        fonts-dejavu-core fonts-dejavu-extra fonts-ebgaramond fonts-humor-sans fonts-inconsolata fonts-lato \
        fonts-liberation2 fonts-linuxlibertine fonts-lobster fonts-open-sans fonts-quicksand \
        fonts-roboto-unhinted fonts-vollkorn
    for deb in *.deb; do dpkg -x $deb fonts; done
    python scripts/make_unnoise_small.py pictures fonts .        # train.npz and test.npz
    unnoise train unnoise-small --data train.npz --set classifier.validation=test.npz --out run
    python scripts/make_unnoise_small.py pack run fonts test.npz # the weights and their card

The pictures are 32x32 RGB: the 60,000 of Fashion-MNIST's training set with a black border of 2 pixels, and
20,000 letters, drawn in fonts, sizes, positions, turns and colours that the picture's number decides. A
letter's class is the letter, in either case, and the colour of its ink, so that the features cannot ignore
colour. Families in HELD_OUT are drawn in the test pictures alone.
"""

import argparse
import colorsys
import hashlib
import random
import string
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unnoise.classifier import ClassifierModel, accuracy, load_classifier, save_classifier
from unnoise.config.schema import DataConfig
from unnoise.data import Dataset, open_data
from unnoise.data.split import part

SIDE, SCALE = 32, 2
LETTERS, TEST_LETTERS = 20_000, 10_000
HELD_OUT = ("Vollkorn", "EBGaramond", "Cantarell", "OpenSans-Cond")
"""Beginnings of the names of font files that only the test pictures use."""
LEFT_OUT = ("LinLibertine_DR", "LinBiolinum_K", "DejaVuMath")
"""Fonts without plain letters: initials, keys, symbols."""
INKS = {"grey": None, "red": (-0.06, 0.1), "green": (0.25, 0.42), "blue": (0.54, 0.72)}
"""Colour -> range of hues, in turns."""
TARGET = Path(__file__).parent.parent / "src/unnoise/metrics/unnoise_small.safetensors"
DOCUMENTS = Path("usr/share/doc")
"""Of a Debian package, its copyright file among them."""
Colour = tuple[int, int, int]


def main() -> None:
    """Runs one of the two steps."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    steps = parser.add_subparsers(dest="step", required=True)
    pictures = steps.add_parser("pictures")
    pictures.add_argument("fonts", type=Path)
    pictures.add_argument("out", type=Path)
    packing = steps.add_parser("pack")
    packing.add_argument("run", type=Path)
    packing.add_argument("fonts", type=Path)
    packing.add_argument("test", type=Path)
    arguments = parser.parse_args()
    if arguments.step == "pictures":
        write_pictures(arguments.fonts, arguments.out)
    else:
        pack(arguments.run, arguments.fonts, arguments.test)


def write_pictures(fonts: Path, out: Path) -> None:
    """Writes train.npz and test.npz."""
    for split, count in (("train", LETTERS), ("test", TEST_LETTERS)):
        files = font_files(fonts, held_out=split == "test")
        clothes = open_data(DataConfig(source=f"fashion-mnist:{split}"))
        border = (SIDE - clothes.size) // 2
        pixels = np.zeros((len(clothes) + count, SIDE, SIDE, 3), np.uint8)
        whole = clothes.take(np.arange(len(clothes)))
        inner = slice(border, border + clothes.size)
        pixels[: len(clothes), inner, inner] = whole.pixels.numpy()
        assert whole.label is not None
        names = [clothes.classes[k] for k in whole.label.tolist()]
        for k in range(count):
            pixels[len(clothes) + k], name = letter(files, random.Random(f"{split}:{k}"))
            names.append(name)
        path = out / f"{split}.npz"
        np.savez_compressed(path, arr_0=pixels, arr_1=np.array(names))
        print(f"{path}: {len(names):,} pictures, {len(set(names))} classes, {len(files)} fonts")


def font_files(folder: Path, *, held_out: bool) -> list[Path]:
    """The font files to draw with, by name."""
    found = sorted([*folder.rglob("*.ttf"), *folder.rglob("*.otf")], key=lambda path: path.name)
    chosen = [
        path
        for path in found
        if path.name.startswith(HELD_OUT) == held_out and not path.name.startswith(LEFT_OUT)
    ]
    if not chosen:
        raise SystemExit(f"no fonts in {folder}")
    return chosen


def letter(files: list[Path], draw: random.Random) -> tuple[np.ndarray, str]:
    """One picture, uint8 (32, 32, 3), and its class."""
    char = draw.choice(string.ascii_lowercase)
    ink_name = draw.choice(list(INKS))
    font = ImageFont.truetype(draw.choice(files), round(SIDE * SCALE * draw.uniform(0.5, 1.05)))
    ink, background = colours(ink_name, draw)
    mask = Image.new("L", (2 * SIDE * SCALE,) * 2)
    middle = SIDE * SCALE
    shown = draw.choice((char, char.upper()))
    ImageDraw.Draw(mask).text((middle, middle), shown, fill=255, font=font, anchor="mm")
    # Turned about its middle, then moved so far that the box of its ink stays inside.
    mask = mask.rotate(draw.uniform(-15, 15), resample=Image.Resampling.BILINEAR)
    left, top, right, bottom = mask.getbbox() or (0, 0, 1, 1)
    wide, high = right - left, bottom - top
    corner_x = draw.randint(*sorted((0, SIDE * SCALE - wide)))
    corner_y = draw.randint(*sorted((0, SIDE * SCALE - high)))
    x, y = left - corner_x, top - corner_y
    mask = mask.crop((x, y, x + SIDE * SCALE, y + SIDE * SCALE)).reduce(SCALE)
    alpha = np.asarray(mask, np.float32)[..., None] / 255
    picture = alpha * np.array(ink) + (1 - alpha) * background
    noise = np.random.default_rng(draw.getrandbits(32)).normal(0, draw.choice((0, 0, 4)), picture.shape)
    return (picture + noise).round().clip(0, 255).astype(np.uint8), f"{char}, {ink_name}"


def colours(ink_name: str, draw: random.Random) -> tuple[Colour, np.ndarray]:
    """An ink of that name and a background that it can be read on, plain or a slope: (32, 32, 3)."""
    hues = INKS[ink_name]
    while True:
        strength = 0.0 if hues is None else draw.uniform(0.55, 1.0)
        hue = draw.uniform(*hues) % 1 if hues else 0.0
        ink = rgb(hue, strength, draw.uniform(0, 1) if hues is None else draw.uniform(0.4, 1))
        plain = draw.random()
        ends = [
            (255,) * 3 if plain < 0.15 else (0,) * 3 if plain < 0.25 else rgb(*(draw.random() for _ in "hsv"))
            for _ in range(2)
        ]
        if min(abs(luminance(ink) - luminance(end)) for end in ends) > 60:
            break
    along = np.linspace(0, 1, SIDE)
    slope = along[:, None] if draw.random() < 0.5 else along[None]
    slope = np.broadcast_to(slope, (SIDE, SIDE))[..., None]
    return ink, slope * np.array(ends[0]) + (1 - slope) * np.array(ends[1])


def rgb(hue: float, strength: float, value: float) -> Colour:
    """A colour of hue (turns), saturation and value in [0, 1]."""
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, strength, value))
    return red, green, blue


def luminance(colour: Colour) -> float:
    """Of 0..255, as television weighs it."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def pack(run: Path, fonts: Path, test: Path) -> None:
    """Writes the weights in float16 and their card."""
    trained = load_classifier(run)
    info = replace(trained.info, licence="MIT", data={**trained.info.data, "source": "see unnoise_small.md"})
    half = {name: value.half() for name, value in trained.network.state_dict().items()}
    save_classifier(TARGET, replace(trained, info=info), weights=half)
    packed = load_classifier(TARGET)
    scores = {
        "Fashion-MNIST test, 28x28 grey": accuracy(
            packed, open_data(DataConfig(source="fashion-mnist:test"))
        ),
        "Fashion-MNIST test, enlarged to 64x64": accuracy(
            packed, open_data(DataConfig(source="fashion-mnist:test", size=64))
        ),
        "letters of families never seen, 32x32, letter and ink": accuracy(packed, letters_only(test)),
    }
    card = TARGET.with_suffix(".md")
    card.write_text(card_text(packed, scores, fonts), encoding="utf-8")
    print(f"{TARGET}: {TARGET.stat().st_size / 1e6:.2f} MB")
    print(card.read_text(encoding="utf-8"))


def letters_only(test: Path) -> Dataset:
    """The test pictures that are letters."""
    pictures = open_data(DataConfig(source=str(test)))
    assert pictures.labels is not None
    chosen = np.flatnonzero([", " in pictures.classes[k] for k in pictures.labels])
    return part(pictures, chosen)


def card_text(model: ClassifierModel, scores: dict[str, float], fonts: Path) -> str:
    """The card of the weights."""
    size = sum(p.numel() for p in model.network.parameters())
    licences = "\n".join(f"- {line}" for line in font_packages(fonts))
    script = Path(__file__).read_text(encoding="utf-8").split('"""')[1]
    commands = script[script.index("    apt-get") : script.index("The pictures are")].rstrip()
    rows = "\n".join(f"| {name} | {100 * share:.1f} % |" for name, share in scores.items())
    settings = model.network.settings
    return f"""# unnoise-small

A compact convolutional classifier whose pooled channels measure pictures of 28x28 to 64x64 pixels where
nothing else is at hand: FD[unnoise-small], KID[unnoise-small] and so on. It is no Inception network; its
numbers compare with its own only.

- network: widths {list(settings.widths)}, {settings.features} features, {size:,} parameters in float16
- pictures: grey or RGB, x / 127.5 - 1, at their own size from 28 to 64 pixels, else resized to the nearest
- taps: pool ({settings.features}), spatial (8 channels at 7 x 7 places), {settings.classes} probabilities
- trained: {model.info.step:,} steps, preset `{model.info.preset}`, average of rate {model.info.ema_rate}
- SHA-256 of unnoise_small.safetensors: {hashlib.sha256(TARGET.read_bytes()).hexdigest()}

| right answers | |
| --- | --- |
{rows}

It has learned clothes and letters. On pictures of other things it tells that distributions differ, and is no
judge of how much a person would mind.

## Made by

{commands}

## Licences

The weights are MIT, like unnoise. The pictures they were learned from: Fashion-MNIST (Zalando SE, MIT), and
letters rendered from these fonts:

{licences}
"""


def font_packages(folder: Path) -> list[str]:
    """Debian's font packages below a folder with the licences that their copyright files name."""
    found = []
    for path in sorted((folder / DOCUMENTS).glob("fonts-*/copyright")):
        text = path.read_text(encoding="utf-8", errors="replace")
        names = {line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("License:")}
        words = sorted(name for name in names if name and len(name) < 40 and "GPL" not in name)
        found.append(f"{path.parent.name}: {', '.join(words) or 'see its copyright file'}")
    return found


if __name__ == "__main__":
    main()

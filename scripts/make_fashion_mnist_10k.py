"""Makes src/unnoise/data/fashion_mnist_10k.png: 1,000 pictures a class of Fashion-MNIST's training set, as
one sheet.

Run it where Debian's package dataset-fashion-mnist is installed (or name the folder of the four idx files):

    python scripts/make_fashion_mnist_10k.py [FOLDER]

The sheet has 100 x 100 tiles of 28 x 28 pixels, left to right, then down. Tile k is of class k % 10: the
first 1,000 training pictures of each class, in file order, taken in turn, so the labels need no file and any
run of ten tiles is balanced. Nothing of the test set is in it.
"""

import gzip
import sys
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES, EACH, SIDE, COLUMNS = 10, 1000, 28, 100
TARGET = Path(__file__).parent.parent / "src/unnoise/data/fashion_mnist_10k.png"


def main(folder: Path) -> None:
    """Reads the training set below `folder` and writes the sheet."""
    pixels = np.frombuffer(
        gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8
    )
    labels = np.frombuffer(
        gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes())[8:], np.uint8
    )
    chosen = np.stack([np.flatnonzero(labels == k)[:EACH] for k in range(CLASSES)], axis=1).reshape(-1)
    tiles = pixels.reshape(-1, SIDE, SIDE)[chosen].reshape(-1, COLUMNS, SIDE, SIDE)
    sheet = tiles.transpose(0, 2, 1, 3).reshape(-1, COLUMNS * SIDE)
    Image.fromarray(sheet).save(TARGET, optimize=True)
    print(f"{TARGET}: {len(chosen)} pictures, {TARGET.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/datasets/fashion-mnist"))

"""What a classifier is validated on: pictures of their own, or some that it does not learn from."""

from dataclasses import replace

import numpy as np

from unnoise.config.schema import TrainConfig
from unnoise.data import Dataset, open_data, order
from unnoise.data.split import hold_out

VALIDATED = 2000
"""Pictures that a validation looks at, at most; the same ones every time."""


def parts(config: TrainConfig, dataset: Dataset, *, source: str, held_out: float) -> tuple[Dataset, Dataset]:
    """Pictures to learn from and to validate on, the latters' labels among the former's classes.

    source, held_out: the settings `validation` and `held_out` of the classifier. ValueError when the source
    has no labels, or a class that the training data lack.
    """
    if not source:
        return hold_out(dataset, held_out)
    name = f"{config.kind}.validation={source}"
    data = replace(config.data, source=source, flip=False, crop="center")
    other = open_data(data, seed=config.seed)
    if other.labels is None:
        raise ValueError(f"{name} has no labels; name data that have, or leave it out")
    unknown = [each for each in other.classes if each not in dataset.classes]
    if unknown:
        raise ValueError(
            f"{name} has class {unknown[0]!r}, which the training data lack; name data of the same classes, "
            "or leave it out"
        )
    place = np.array([dataset.classes.index(each) for each in other.classes], np.int64)
    return dataset, replace(other, labels=place[other.labels], classes=dataset.classes)


def chosen(validation: Dataset, seed: int) -> np.ndarray:
    """Which pictures a validation looks at, (K,) int64, in an order that the seed decides."""
    count = min(VALIDATED, len(validation))
    return order.pictures(seed, len(validation), np.arange(count))

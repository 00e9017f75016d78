"""Made-up features of 2048 dimensions for the metrics, from much structure to none."""

import numpy as np

DIMS = 2048


def network(n: int, seed: int, shift: float, scale: float) -> np.ndarray:
    """8 degrees of freedom, noise, relu: the recipe of tests/golden/metrics.json."""
    w = np.random.default_rng(99).standard_normal((8, DIMS), dtype=np.float32)
    g = np.random.default_rng(seed)
    z = g.standard_normal((n, 8), dtype=np.float32) * np.float32(scale) + np.float32(shift)
    f = np.float32(0.4 / np.sqrt(8)) * (z @ w) + np.float32(0.05) * g.standard_normal(
        (n, DIMS), dtype=np.float32
    )
    return np.maximum(f, 0)


def spectrum(n: int, seed: int, shift: float, scale: float) -> np.ndarray:
    """Every dimension has its own degree of freedom, of variance 1, 1/2, 1/3, ...; relu.

    Photographs under a trained network look like this: a long tail, half of the variance in 30 directions.
    """
    mix = np.random.default_rng(98).standard_normal((DIMS, DIMS), dtype=np.float32) / np.float32(DIMS**0.5)
    deviations = np.arange(1, DIMS + 1, dtype=np.float32) ** np.float32(-0.5)
    z = np.random.default_rng(seed).standard_normal((n, DIMS), dtype=np.float32) * deviations
    return np.maximum((z * np.float32(scale) + np.float32(shift) * deviations) @ mix, 0)


def noise(n: int, seed: int, shift: float, scale: float) -> np.ndarray:
    """Independent normal numbers, the worst case: nothing bounds a distance but all of its terms."""
    g = np.random.default_rng(seed)
    return g.standard_normal((n, DIMS), dtype=np.float32) * np.float32(scale) + np.float32(shift)


KINDS = {"network": network, "spectrum": spectrum, "noise": noise}


def pair(kind: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Real pictures' features and samples' that differ a little; noise differs by chance alone."""
    shift, scale = (0.0, 1.0) if kind == "noise" else (0.1, 0.9)
    return KINDS[kind](n, 1, 0.0, 1.0), KINDS[kind](n, 2, shift, scale)

"""The feature recipe of the group `metrics`, parsed from its manifest."""

import re
from functools import cache

import numpy as np
import torch

from tests.goldens import Case


@cache
def feats(n, d, seed, shift, scale, relu):
    w = np.random.Generator(np.random.PCG64(99)).standard_normal((8, d), dtype=np.float32)
    generator = np.random.Generator(np.random.PCG64(seed))
    z = generator.standard_normal((n, 8), dtype=np.float32) * np.float32(scale) + np.float32(shift)
    e = generator.standard_normal((n, d), dtype=np.float32)
    f = np.float32(0.4) * (z @ w) / np.float32(np.sqrt(8)) + np.float32(0.05) * e
    return np.maximum(f, 0) if relu else f


CALL = re.compile(
    r"feats\((\d+),(\d+),(\d+),([-\d.e]+),([-\d.e]+),(True|False)\)(?:\*float32\(([-\d.e]+)\))?"
)
NORMAL = re.compile(
    r"Generator\(PCG64\((\d+)\)\)\.standard_normal\(\((\d+),(\d+)\),float32\)\*float32\(([-\d.e]+)\)"
)


def features(text: str) -> torch.Tensor:
    n, d, seed, shift, scale, relu, factor = CALL.search(text.replace(" ", "")).groups()
    x = feats(int(n), int(d), int(seed), float(shift), float(scale), relu == "True")
    return torch.from_numpy(x * np.float32(factor or 1.0))


def normal(text: str) -> torch.Tensor:
    seed, n, d, factor = NORMAL.search(text.replace(" ", "")).groups()
    z = np.random.Generator(np.random.PCG64(int(seed))).standard_normal((int(n), int(d)), dtype=np.float32)
    return torch.from_numpy(z * np.float32(factor))


def sides(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """(reference, sample) features: stored arrays when there are any, else the recipe."""
    out = []
    for name in ("reference", "sample"):
        if case.has_input(name):
            out.append(case.input(name))
        else:
            recipe = case.spec.get("recipe") or case.spec["results"]["recipe"]
            out.append(features(recipe[name]))
    return out[0], out[1]


def probabilities(case: Case) -> torch.Tensor:
    if case.has_input("probabilities"):
        return case.input("probabilities")
    recipe = case.spec.get("recipe") or case.spec["results"]["recipe"]
    if "feats(" in recipe:
        weights = normal(recipe[recipe.index("Generator") :])
        return (features(recipe) @ weights).softmax(1)
    return normal(recipe).softmax(1)

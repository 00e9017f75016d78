"""Holes: of the share that was asked for, each a function of seed and place, refused when there is none."""

import numpy as np
import pytest
import torch

from unnoise.data.masks import MASKS, check_mask, draw_masks, masked


@pytest.mark.parametrize("kind", [*MASKS, "mixed"])
@pytest.mark.parametrize("sides", [(64, 64), (32, 48)])
def test_shares_places_and_seeds(kind: str, sides: tuple[int, int]) -> None:
    places = np.arange(40)
    holes = draw_masks(kind, *sides, seed=1, places=places, least=0.2, most=0.55)
    assert holes.shape == (40, 1, *sides) and holes.dtype == torch.bool
    share = holes.float().mean((1, 2, 3))
    assert share.min() >= 0.2 and share.max() <= 0.55
    alone = torch.cat(
        [draw_masks(kind, *sides, seed=1, places=places[k : k + 1], least=0.2, most=0.55) for k in (7, 31)]
    )
    assert (alone == holes[[7, 31]]).all(), "a place alone and in a batch"
    assert (draw_masks(kind, *sides, seed=2, places=places, least=0.2, most=0.55) != holes).any()
    different = len(np.unique(holes.flatten(1).numpy(), axis=0))
    assert different == {"half": 4}.get(kind, 40) or (kind == "mixed" and different > 30)
    check_mask(holes)


def test_what_each_kind_is() -> None:
    box = draw_masks("box", 64, 64, seed=0, places=np.arange(20))[:, 0]
    for hole in box:
        rows, columns = hole.any(1).sum(), hole.any(0).sum()
        assert hole.sum() == rows * columns and rows <= 3.2 * columns and columns <= 3.2 * rows
    half = draw_masks("half", 64, 64, seed=0, places=np.arange(20))
    assert (half.sum((1, 2, 3)) == 32 * 64).all()

    def edge(kind: str) -> float:
        """Edge of the hole for its area: long for thin strokes."""
        hole = draw_masks(kind, 128, 128, seed=0, places=np.arange(40), least=0.2, most=0.3).float()
        around = (hole.diff(dim=2) != 0).sum() + (hole.diff(dim=3) != 0).sum()
        return float(around / hole.sum())

    assert edge("strokes") > 2 * edge("wide")


def test_the_hole_is_emptied_and_the_rest_kept() -> None:
    images = torch.rand(4, 3, 16, 16) + 0.1
    hole = draw_masks("mixed", 16, 16, seed=3, places=np.arange(4), least=0.3, most=0.6)
    seen = masked(images, hole)
    assert ((seen == 0) == hole).all() and (
        seen[~hole.expand_as(seen)] == images[~hole.expand_as(seen)]
    ).all()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"kind": "round"}, "mask='round' is unknown; use box, half, strokes, wide or mixed"),
        ({"kind": "box", "least": 0.5, "most": 0.2}, "a hole of 0.5 to 0.2 of the picture"),
        ({"kind": "box", "least": 0.0, "most": 0.2}, "0 < least"),
        ({"kind": "half", "least": 0.1, "most": 0.2}, "half of a picture is not 0.1 to 0.2"),
        ({"kind": "box", "least": 0.101, "most": 0.102}, "no hole of 0.101 to 0.102 of 4x4"),
        ({"kind": "strokes", "least": 0.101, "most": 0.102}, "no hole of"),
    ],
)
def test_what_is_refused(settings: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        draw_masks(**{"height": 4, "width": 4, "seed": 0, "places": np.arange(1), **settings})


def test_masks_without_a_hole() -> None:
    whole = torch.zeros(3, 1, 4, 4, dtype=torch.bool)
    whole[:2, :, 0] = True
    with pytest.raises(ValueError, match="mask 2 has no hole; mark what is to be filled in"):
        check_mask(whole)
    with pytest.raises(ValueError, match="mask 0 leaves nothing"):
        check_mask(torch.ones(1, 1, 4, 4))

"""Maps applied tile by tile: latent-diffusion's recorded patches, exact where the map is local."""

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.diffusion.ldm import Toy
from tests.goldens import Case, assert_close, golden
from unnoise import tiles
from unnoise.diffusion.condition import Condition
from unnoise.tiles import Tiling, apply_tiled, border_distance, tile_weights


def is_patchwise(spec: dict[str, Any]) -> bool:
    return spec["id"].startswith("patchwise")


@golden("ldm_extras", only=is_patchwise)
def test_patches_are_latent_diffusions(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    s = case.spec["settings"]
    least, most = s["clip_min_weight"], s["clip_max_weight"]
    assert (s["clip_min_tie_weight"], s["clip_max_tie_weight"]) == (least, most), "one pair serves both here"
    monkeypatch.setattr(tiles, "LEAST", least)
    monkeypatch.setattr(tiles, "MOST", most)
    (size, other), (stride, along) = s["ks"], s["stride"]
    assert size == other and stride == along
    tiling = Tiling(size=size, stride=stride, ranked=s["tie_braker"])
    x, c, t = case.input("x"), case.input("c"), case.input("t")
    toy = Toy(x.shape[1])

    def network(tile: torch.Tensor) -> torch.Tensor:
        seen, concat = tile.chunk(2, dim=1)
        return toy(seen, t.float(), Condition(concat=concat))

    assert_close(apply_tiled(network, torch.cat([x, c], 1), tiling), case.output("output"), 1e-5, "output")
    for name in set(case.outputs) - {"output"}:
        height, width, rows, columns = map(
            int, re.fullmatch(r"weighting_(\d+)x(\d+)_grid(\d+)x(\d+)", name).groups()
        )
        ranks = tile_weights(rows, columns) if tiling.ranked else torch.ones(rows, columns)
        ours = tile_weights(height, width).view(1, -1, 1) * ranks.view(1, 1, -1)
        assert_close(ours, case.output(name), 1e-6, name)


@pytest.mark.parametrize("size", [(16, 20), (17, 9), (8, 8), (5, 31)])
def test_local_maps_are_exact_at_any_size(size):
    x = torch.randn(2, 3, *size)
    tiling = Tiling(size=8, stride=5)
    assert torch.allclose(apply_tiled(torch.sin, x, tiling), x.sin(), atol=1e-6)
    larger = apply_tiled(lambda tile: F.interpolate(tile, scale_factor=3), x, tiling)
    assert torch.allclose(larger, F.interpolate(x, scale_factor=3), atol=1e-6)


def test_maps_that_shrink_need_places_that_fit():
    x = torch.randn(1, 2, 24, 40)

    def halve(tile):
        return F.avg_pool2d(tile, 2)

    assert torch.allclose(apply_tiled(halve, x, Tiling(size=8, stride=6)), halve(x), atol=1e-6)
    with pytest.raises(ValueError, match="does not fit position 5"):
        apply_tiled(halve, x, Tiling(size=8, stride=5))


def test_gaps_between_tiles_are_refused():
    with pytest.raises(ValueError, match="8 positions 9 apart leave gaps; use a distance of 1..8"):
        Tiling(size=8, stride=9)


def test_tiles_end_with_the_picture():
    assert Tiling(size=8, stride=6).starts(20) == [0, 6, 12]
    assert Tiling(size=8, stride=6).starts(21) == [0, 6, 12, 13]
    assert Tiling(size=8, stride=6).starts(8) == [0] == Tiling(size=8, stride=6).starts(3)


def test_weights_fall_towards_borders():
    distance = border_distance(5, 9)
    assert distance[2, 4] == 0.5 and distance[0].max() == 0 and distance[1, 4] == 0.25
    assert tile_weights(5, 9).min() == pytest.approx(tiles.LEAST)

"""Calibration by hand: two bins, bins with their upper ends, nothing to measure."""

import pytest
import torch

from unnoise.metrics.calibration import reliability


def test_two_bins_by_hand() -> None:
    confidence = torch.tensor([0.9, 0.95, 0.91, 0.92, 0.55, 0.59])
    right = torch.tensor([True, True, True, False, True, False])
    table = reliability(confidence, right, bins=5)
    assert table.count == (2, 4)
    assert table.confidence == pytest.approx((0.57, 0.92)) and table.accuracy == pytest.approx((0.5, 0.75))
    assert table.error == pytest.approx(2 / 6 * 0.07 + 4 / 6 * 0.17)


def test_a_bin_has_its_upper_end() -> None:
    table = reliability(torch.tensor([0.25, 0.5, 0.75, 1.0]), torch.ones(4, dtype=torch.bool), bins=4)
    assert table.count == (1, 1, 1, 1) and table.error == pytest.approx(0.375)


def test_answers_as_often_right_as_they_are_sure_have_no_error() -> None:
    confidence = torch.rand(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    right = torch.rand(200_000, generator=torch.Generator().manual_seed(1)) < confidence
    assert reliability(confidence, right).error < 0.01
    assert reliability(confidence, ~right).error > 0.4


def test_without_answers_there_is_no_calibration() -> None:
    with pytest.raises(ValueError, match="no predictions"):
        reliability(torch.empty(0), torch.empty(0, dtype=torch.bool))

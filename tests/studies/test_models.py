"""Models that a study opens: a checkpoint is the run's first average at that step."""

import pytest
import torch

from tests.train.gans import tiny_gan
from tests.train.tiny import tiny_run
from unnoise.studies.models import open_model


def test_the_last_checkpoint_is_the_model_file_and_an_earlier_one_is_not(tmp_path):
    tiny_run(tmp_path)
    (whole, _), (last, a), (early, b) = (
        open_model(str(tmp_path / place), "cpu")
        for place in ("", "checkpoints/step-00000012", "checkpoints/step-00000004")
    )
    assert (last.info.step, early.info.step) == (12, 4) and a != b
    states = [model.network.state_dict() for model in (whole, last, early)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not all(torch.equal(states[0][key], states[2][key]) for key in states[0])
    broken = tmp_path / "checkpoints" / "step-00000012" / "ema-0.9.safetensors"
    broken.write_bytes(broken.read_bytes()[:-9])
    with pytest.raises(ValueError, match="is damaged"):
        open_model(str(broken.parent), "cpu")


def test_a_checkpoint_of_a_gan_has_standing_statistics_of_its_own(tmp_path):
    tiny_run(tmp_path, tiny_gan(sample_every=0, optimizer={"decay": "none"}))
    (whole, _), (last, _), (early, _) = (
        open_model(str(tmp_path / place), "cpu")
        for place in ("", "checkpoints/step-00000008", "checkpoints/step-00000004")
    )
    assert (last.info.step, early.info.step) == (8, 4)
    states = [model.network.state_dict() for model in (whole, last, early)]
    assert states[0].keys() == states[1].keys() == states[2].keys()
    # But for rounding: where a tensor begins in memory decides how its sums are split.
    assert all(torch.allclose(value, states[1][key], atol=1e-5) for key, value in states[0].items())
    assert not torch.allclose(states[0]["linear.weight"], states[2]["linear.weight"])
    name = "levels.0.0.norm1.norm.mean"
    assert not torch.allclose(states[0][name], states[2][name], atol=1e-4)

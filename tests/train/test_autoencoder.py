"""Training first stages: both kinds learn, continue to the bit, begin their adversary, keep codes alive."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.train.tiny import assert_same_run, changed, tiny_data, tiny_run
from unnoise.config.load import from_dict, merge
from unnoise.config.resolve import resolve
from unnoise.config.schema import AdversaryConfig, OptimizerConfig, TrainConfig
from unnoise.first_stage import load_first_stage
from unnoise.images import to_images
from unnoise.networks.posterior import Posterior
from unnoise.networks.quantize import VectorQuantizer
from unnoise.train.adversary import Adversary
from unnoise.train.autoencoder import AutoencoderJob
from unnoise.train.codebook import CodeUse
from unnoise.train.perceptual import choose, open_perceptual
from unnoise.train.report import read_log, report_run

SETTINGS: dict[str, Any] = {
    "kind": "autoencoder",
    "autoencoder": {
        "network": {
            "kind": "kl", "latent_channels": 2, "width": 16, "depth": 1, "channel_mult": [1, 1],
            "dropout": 0.1, "attention_type": "none",
        },
        "perceptual": "unnoise-small",
        "learn_logvar": True,
        "held_out": 0.25,
        "adversary": {"start": 3, "network": {"width": 8, "layers": 1}},
    },
    "optimizer": {"lr": 0.002, "betas": [0.5, 0.9], "clip_norm": None},
    "ema": {"rates": [0.9]},
    "steps": 8,
    "batch_size": 6,
    "micro_batch": 4,
    "precision": "float32",
    "device": "cpu",
    "log_every": 2,
    "save_every": 4,
    "sample_every": 4,
}  # fmt: skip
VQ = {"autoencoder": {"network": {"kind": "vq", "codes": 16}, "revive_after": 3, "learn_logvar": False}}
NOISY = {"autoencoder": {"latent_noise": 0.2}}
KINDS = pytest.mark.parametrize("changes", [{}, VQ], ids=["kl", "vq"])


def tiny_stage(**changes: Any) -> TrainConfig:
    return from_dict(TrainConfig, merge(SETTINGS, changes))


@KINDS
def test_a_run_leaves_a_first_stage_and_its_readings(changes, tmp_path: Path) -> None:
    result, events = tiny_run(tmp_path / "run", tiny_stage(**changes))
    assert result.steps == 8 and not result.skipped
    stage = load_first_stage(tmp_path / "run")
    assert stage.info.step == 8 and stage.config.perceptual == "unnoise-small"
    assert stage.statistics is not None and stage.scale == stage.statistics.scale != (1.0,)
    images = to_images(tiny_data().take(np.arange(3)).pixels)
    assert stage.decode(stage.encode(images)).shape == images.shape
    log = read_log(tmp_path / "run")
    first, last = log[0], [line for line in log if "loss" in line][-1]
    assert "adversary/margin" not in first
    for name in ("psnr", "latents/std", "adversary/weight", "adversary/margin", "loss/perceptual"):
        assert np.isfinite(last[name]), name
    seen = next(line for line in reversed(log) if "validation/psnr" in line)
    assert {"validation/features[unnoise-small]", "validation/FD[unnoise-small]"} <= seen.keys()
    assert ("codebook/usage" in last) == ("validation/codebook/usage" in seen) == bool(changes)
    assert list((tmp_path / "run" / "samples").glob("step-*.png"))
    assert any("unnoise-small" in getattr(event, "text", "") for event in events)
    page = report_run(tmp_path / "run", result).read_text()
    for words in (
        "dB",
        "features[unnoise-small]",
        "FD[unnoise-small]",
        "Health",
        "Adaptive weight",
        "margin",
    ):
        assert words in page, words
    assert ("Perplexity" in page) == ("Share of the codes" in page) == bool(changes)
    assert ("Log variance" in page) != bool(changes) and "nothing recorded" not in page


@pytest.mark.parametrize("changes", [{}, NOISY, VQ], ids=["kl", "noisy", "vq"])
def test_a_run_that_was_stopped_continues_to_the_bit(changes, tmp_path: Path) -> None:
    config = tiny_stage(**changes)
    tiny_run(tmp_path / "whole", config)
    tiny_run(tmp_path / "parts", changed(config, steps=4))
    tiny_run(tmp_path / "parts", config)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_micro_batches_change_the_gradient_by_rounding_alone(tmp_path: Path) -> None:
    """Without what looks at a whole batch: the adversary's norm and balance, and dropout."""
    free = {"network": {"dropout": 0.0}, "adversary": {"weight": 0.0}, "latent_noise": 0.5}
    plain = {"autoencoder": free, "steps": 2}
    found = []
    for size in (6, 4):
        tiny_run(tmp_path / str(size), tiny_stage(**merge(plain, {"micro_batch": size})))
        found.append(load_first_stage(tmp_path / str(size)).network.state_dict())
    for key, value in found[0].items():
        assert torch.allclose(value, found[1][key], atol=2e-5), key


@KINDS
def test_first_stages_learn(changes, tmp_path: Path) -> None:
    """24 pictures of 8x8 by heart: far nearer than their mean grey is."""
    free = {"autoencoder": {"network": {"dropout": 0.0}, "adversary": {"weight": 0.0}}, "steps": 150}
    more = {
        "micro_batch": 6,
        "sample_every": 0,
        "save_every": 150,
        "log_every": 25,
        "optimizer": {"lr": 0.01},
    }
    tiny_run(tmp_path / "run", tiny_stage(**merge(merge(changes, free), more)))
    log = [line for line in read_log(tmp_path / "run") if "psnr" in line]
    assert log[-1]["psnr"] > log[0]["psnr"] + 1.5


def test_noise_on_latents_is_a_share_of_the_deviation_of_a_channel_over_a_picture() -> None:
    """And no gradient goes through that deviation, which would make latents smaller for it."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(3, 2, 64, 64, generator=generator) * torch.tensor([0.5, 4.0])[:, None, None]
    mean = (mean * torch.tensor([1.0, 2.0, 3.0])[:, None, None, None]).requires_grad_()
    z = torch.randn(mean.shape, generator=generator)
    posterior, share = Posterior(mean, torch.full_like(mean, -2.0)), torch.tensor([0.0, 0.1, 0.4])
    drawn = posterior.sample(z, share)
    assert torch.equal(drawn[0], posterior.sample(z)[0])
    spread = (drawn - mean).detach().var((2, 3))
    wanted = torch.tensor(-2.0).exp() + (share[:, None] * mean.detach().std((2, 3))) ** 2
    assert (spread / wanted - 1).abs().max() < 5 * (2 / 64**2) ** 0.5
    drawn.sum().backward()
    assert torch.equal(mean.grad, torch.ones_like(mean))


def test_every_picture_has_its_own_share_of_noise(tmp_path: Path) -> None:
    config = resolve(tiny_stage(**NOISY), size=8, channels=1, classes=2)
    job = AutoencoderJob(config, tiny_data(), torch.device("cpu"))
    noise = torch.cat([job.draw(step, range(6)).noise for step in range(50)])
    assert 0 <= noise.min() and noise.max() <= 0.2 and abs(noise.mean() - 0.1) < 0.02
    batch = job.draw(3, range(6))
    assert torch.equal(job.draw(3, range(2, 5)).noise, batch.noise[2:5])
    job.network.eval()
    heard, deaf = (job.losses(job.network, each).loss for each in (batch, replace(batch, noise=None)))
    assert (heard != deaf).all()


def adversary(**changes: Any) -> Adversary:
    config = from_dict(AdversaryConfig, {"network": {"width": 8, "layers": 1}, **changes})
    return Adversary(
        config, OptimizerConfig(lr=0.002), channels=1, batch_size=8,
        device=torch.device("cpu"), dtype=None,
    )  # fmt: skip


def test_the_adversary_begins_when_reconstruction_stops_getting_better() -> None:
    player = adversary()
    for step in range(400):
        player.count(max(1.0 - step / 200, 0.2), 1000)
    assert player.active and 200 <= player.began <= 300  # steps 160 on are all alike; windows of 50
    late = adversary()
    for step in range(600):
        late.count(0.9**step, 1000)
    assert late.began == 500  # half of the steps at the latest
    fixed, never = adversary(start=7), adversary(weight=0.0)
    for _ in range(10):
        fixed.count(1.0, 1000)
        never.count(1.0, 1000)
    assert fixed.began == 7 and not never.active and adversary(start=0).active


def test_the_adversary_goes_by_the_steps_that_minutes_decide_later() -> None:
    data = tiny_data()
    config = tiny_stage(steps=100_000, autoencoder={"adversary": {"start": None}})
    config = resolve(config, size=8, channels=1, classes=2)
    job = AutoencoderJob(config, data, torch.device("cpu"))
    for _ in range(100):
        job.observe({"error": torch.ones(8)}, steps=200)
    assert job.adversary.began == 100


@pytest.mark.parametrize("loss", ["hinge", "vanilla"])
def test_the_adversary_learns_to_tell_pictures_from_others(loss: str) -> None:
    torch.manual_seed(0)
    player = adversary(loss=loss, start=0)
    real, fake = torch.rand(8, 1, 8, 8) * 0.2 + 0.6, torch.rand(8, 1, 8, 8) * 0.2 - 0.8
    margins = []
    for _ in range(60):
        player.learn([(real, fake)], 1000)
        margins.append(player.margin)
    assert margins[-1] > margins[0] + 0.5
    assert player.deceived(real).mean() < player.deceived(fake).mean()


def test_unused_codes_move_to_where_latents_are() -> None:
    quantizer = VectorQuantizer(32, 2, 0.25, "commitment")
    use = CodeUse(quantizer, revive_after=5, seed=0)
    torch.manual_seed(1)
    for _ in range(12):
        latents = torch.randn(4, 2, 6, 6) + 3
        use.count([quantizer(latents).indices], [latents])
    assert use.usage == 1.0 and use.perplexity > 10
    assert (quantizer.embedding.weight.mean(0) - 3).abs().max() < 0.7
    still = VectorQuantizer(32, 2, 0.25, "commitment")
    before = still.embedding.weight.clone()
    CodeUse(still, revive_after=0, seed=0).count([still(latents).indices], [latents])
    assert torch.equal(before, still.embedding.weight)


def test_codes_that_are_only_moved_do_not_count_as_used() -> None:
    quantizer = VectorQuantizer(32, 2, 0.25, "commitment")
    use = CodeUse(quantizer, revive_after=3, seed=0)
    latents = torch.full(
        (4, 2, 6, 6), 3.0
    )  # alike, so that one code has them all wherever the others are moved
    for _ in range(8):
        use.count([quantizer(latents).indices], [latents])
    assert (quantizer.embedding.weight == 3).all(1).sum() > 20 and use.usage <= 3 / 32
    again = CodeUse(quantizer, revive_after=3, seed=0)
    again.load_state_dict(use.state_dict())
    assert again.usage == use.usage


def test_the_shipped_features_are_a_distance() -> None:
    distance = open_perceptual("unnoise-small", torch.device("cpu"))
    assert distance is not None
    torch.manual_seed(0)
    a = torch.rand(2, 1, 28, 28) * 2 - 1
    b = (a + 0.1 * torch.randn_like(a)).requires_grad_()
    near, far = distance(a, b), distance(a, torch.rand_like(a) * 2 - 1)
    assert near.shape == (2, 1, 1, 1) and (distance(a, a) == 0).all() and (near < far).all()
    near.sum().backward()
    assert b.grad.abs().sum() > 0
    assert open_perceptual("none", torch.device("cpu")) is None and choose("none") == "none"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"autoencoder": {"perceptual": "vgg"}}, "autoencoder.perceptual=vgg is no file and no network"),
        ({"autoencoder": {"held_out": 0.0}}, "autoencoder.held_out=0.0 is not possible"),
        ({"autoencoder": {"kl_weight": -1.0}}, "autoencoder.kl_weight=-1.0 is not possible; use 0 or more"),
        ({"autoencoder": {"latent_noise": -0.1}}, "autoencoder.latent_noise=-0.1 is not possible"),
        (merge(VQ, NOISY), "autoencoder.latent_noise=0.2 is for Gaussian latents"),
        ({"autoencoder": {"adversary": {"start": -1}}}, "autoencoder.adversary.start=-1 is not possible"),
        ({"autoencoder": {"adversary": {"lr": 0.0}}}, "autoencoder.adversary.lr=0.0 is not possible"),
        (
            {"autoencoder": {"adversary": {"network": {"layers": 3}}}},
            "pictures of 8 pixels are too small for a discriminator of 3 layers, which needs 24",
        ),
        ({"autoencoder": {"network": {"channel_mult": [1] * 5}}}, "8 pixels is no multiple of 16"),
        ({"compile": "on"}, "compile=on: the balance"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(changes, message, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as error:
        tiny_run(tmp_path / "run", tiny_stage(**changes))
    assert "\n" not in str(error.value)

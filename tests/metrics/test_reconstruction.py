"""PSNR, SSIM, LPIPS, consistency: closed forms, and scikit-image where it is installed."""

import math

import numpy as np
import pytest
import torch

from unnoise.metrics.reconstruction import downsampled_psnr, lpips, psnr, ssim
from unnoise.networks.lpips import Lpips


def pictures(seed, *, n=3, size=24, channels=3):
    return torch.from_numpy(
        np.random.default_rng(seed).integers(0, 256, (n, size, size, channels), dtype=np.uint8)
    )


def test_psnr_of_a_known_error():
    a = torch.full((2, 8, 8, 3), 100, dtype=torch.uint8)
    assert psnr(real=a, fake=a + 5) == pytest.approx(20 * math.log10(255 / 5))
    assert torch.isinf(psnr(real=a, fake=a)).all()


def test_ssim_of_flat_pictures():
    """Without variance only the luminance term is left: (2ab + c1) / (a^2 + b^2 + c1)."""
    a, b = torch.full((1, 16, 16, 1), 100.0), torch.full((1, 16, 16, 1), 120.0)
    c1 = (0.01 * 255) ** 2
    assert ssim(real=a, fake=b).item() == pytest.approx((2 * 100 * 120 + c1) / (100**2 + 120**2 + c1))
    assert ssim(real=pictures(0), fake=pictures(0)) == pytest.approx(1)
    with pytest.raises(ValueError, match="window"):
        ssim(real=a[:, :8], fake=b[:, :8])


def test_ssim_agrees_with_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    a, b = pictures(1), (pictures(1).float() * 0.8 + pictures(2).float() * 0.2).byte()
    ours = ssim(real=a, fake=b)
    for i in range(len(a)):
        theirs = metrics.structural_similarity(
            a[i].numpy(),
            b[i].numpy(),
            channel_axis=2,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert ours[i].item() == pytest.approx(theirs, rel=1e-9)
        noise = metrics.peak_signal_noise_ratio(a[i].numpy(), b[i].numpy(), data_range=255)
        assert psnr(real=a, fake=b)[i].item() == pytest.approx(noise, rel=1e-9)


def test_consistency_after_downsampling():
    low = pictures(3, size=8).double()
    high = low.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.isinf(downsampled_psnr(low=low, fake=high)).all()
    assert downsampled_psnr(low=low, fake=high + 5) == pytest.approx(20 * math.log10(255 / 5))
    with pytest.raises(ValueError, match="multiple"):
        downsampled_psnr(low=low, fake=high[:, :15])


def test_lpips_repeats_grey_and_orders():
    torch.manual_seed(0)
    network = Lpips()
    for i in range(5):
        torch.nn.init.uniform_(getattr(network, f"lin{i}").model[1].weight)
    a = pictures(4, channels=1, size=32)
    near, far = (a.float() + 5).clamp(0, 255).byte(), pictures(5, channels=1, size=32)
    assert (lpips(network, real=a, fake=near) < lpips(network, real=a, fake=far)).all()
    assert lpips(network, real=a, fake=a).eq(0).all()


def test_pairs_must_match():
    with pytest.raises(ValueError, match="no pairs"):
        psnr(real=pictures(0), fake=pictures(0, size=16))

"""How much memory decoding a large picture takes, by tiles or whole: the peak of this process.

    python scripts/decoding_memory.py --preset kl-f4 --side 1024
    python scripts/decoding_memory.py --preset kl-f4 --side 1024 --whole

The network is the preset's, at full size with fresh weights: memory does not depend on what it has learned.
"""

import argparse
import resource
import sys
import time

import torch

from unnoise.first_stage import make_first_stage
from unnoise.presets import load_preset


def peak() -> float:
    """Peak memory of this process, GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--preset", default="kl-f4")
    parser.add_argument("--side", type=int, default=1024, help="pixels")
    parser.add_argument("--tile", type=int, help="latent positions; left out: 256 pixels")
    parser.add_argument("--whole", action="store_true", help="no tiles")
    parser.add_argument("--encode", action="store_true", help="encode such a picture too")
    chosen = parser.parse_args()
    config = load_preset(chosen.preset).published().autoencoder
    assert config is not None
    stage = make_first_stage(config)
    stage.network.eval().requires_grad_(False)
    places = chosen.side // stage.factor
    latents = torch.randn(1, stage.channels, places, places)
    began, before = time.monotonic(), peak()
    images = stage.decode(latents) if chosen.whole else stage.decode_tiled(latents, tile=chosen.tile)
    if chosen.encode:
        images = images.clamp(-1, 1)
        latents = stage.encode(images) if chosen.whole else stage.encode_tiled(images, tile=chosen.tile)
    how = "whole" if chosen.whole else "by tiles"
    side = images.shape[2]
    print(f"{chosen.preset}, {side}x{side} {how}: peak {peak():.2f} GB ({before:.2f} GB before), "
          f"{time.monotonic() - began:.0f} s")  # fmt: skip


if __name__ == "__main__":
    main()

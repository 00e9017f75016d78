"""`python -m benchmarks [PART ...]`: this package beside its peers, one table a part.

unet: the ADM U-Net beside diffusers. guidance: sampling under a classifier beside its two networks.
latents: drawing and training in latents beside pixels. inpainting: with a part held beside plain sampling.
frechet: the Frechet distance beside scipy's and the eigenvalues' route. neighbours: precision and recall
beside numpy. inception: the network of FID beside torch-fidelity's. agreement: every metric beside torch-
fidelity, pytorch-fid and clean-fid, on the same features and the same pictures. bfloat16: what lower
precision in the feature network would do to the numbers.

All take about 20 minutes on two idle cores: unet 2, guidance 1, latents 2, inpainting 3, frechet 4,
neighbours 8, the others 1 or 2.
"""

import argparse
import importlib
import os
import time

PARTS = {
    "unet": "unet",
    "guidance": "guidance",
    "latents": "latents",
    "inpainting": "inpainting",
    "frechet": "metrics_frechet",
    "neighbours": "metrics_neighbours",
    "inception": "metrics_inception",
    "agreement": "metrics_agreement",
    "bfloat16": "metrics_bfloat16",
}


def parser() -> argparse.ArgumentParser:
    """Options of all parts."""
    found = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)}; default all")
    found.add_argument(
        "--rounds", type=int, default=5, help="of which the median is taken, in turn; default 5"
    )
    found.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    found.add_argument(
        "--batch", type=int, default=32, help="unet, guidance, latents, inpainting, inception: pictures"
    )
    found.add_argument("--steps", nargs="+", choices=("forward", "training"), default=("forward", "training"),
                       help="unet: what is timed")  # fmt: skip
    found.add_argument("--compile", action="store_true", help="unet: torch.compile both as well (minutes)")
    found.add_argument("--n", type=int, default=10_000, help="neighbours: pictures a side")
    found.add_argument("--blocks", type=int, nargs="+", default=(1024, 10_000),
                       help="neighbours: rows of a block for numpy and us; ADM's is 10,000")  # fmt: skip
    found.add_argument("--kinds", nargs="+", default=("network", "spectrum", "noise"),
                       choices=("network", "spectrum", "noise"), help="neighbours: features")  # fmt: skip
    found.add_argument("--side", type=int, default=64, help="inception: side of the pictures")
    return found


def main() -> None:
    """Run the parts that were asked for, each with its tables."""
    args = parser().parse_args()
    unknown = [part for part in args.parts if part not in PARTS]
    if unknown:
        parser().error(f"{unknown[0]!r} is no part; choose from {', '.join(PARTS)}")
    # Before numpy and torch are imported: their thread pools read these once.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    began = time.monotonic()
    for part in args.parts or PARTS:
        at = time.monotonic()
        importlib.import_module(f"benchmarks.{PARTS[part]}").run(args)
        print(f"({part}: {time.monotonic() - at:.0f} s)", flush=True)
    print(f"\nall: {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()

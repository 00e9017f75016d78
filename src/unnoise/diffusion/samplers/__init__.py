"""One file a method. `SAMPLERS` is what the command line offers; inversion, which climbs, is apart."""

from unnoise.diffusion.samplers.ddim import Ddim, DdimInversion
from unnoise.diffusion.samplers.ddpm import Ddpm
from unnoise.diffusion.samplers.dpmpp import Dpmpp2M, Dpmpp3M
from unnoise.diffusion.samplers.euler import Euler
from unnoise.diffusion.samplers.heun import Heun
from unnoise.diffusion.samplers.plms import Plms
from unnoise.diffusion.samplers.unipc import UniPc
from unnoise.diffusion.walk import Sampler

SAMPLERS: dict[str, type[Sampler]] = {
    "ddpm": Ddpm,
    "ddim": Ddim,
    "euler": Euler,
    "heun": Heun,
    "plms": Plms,
    "dpmpp-2m": Dpmpp2M,
    "dpmpp-3m": Dpmpp3M,
    "unipc": UniPc,
}

__all__ = [
    "SAMPLERS", "Ddim", "DdimInversion", "Ddpm", "Dpmpp2M", "Dpmpp3M", "Euler", "Heun", "Plms", "UniPc",
]  # fmt: skip

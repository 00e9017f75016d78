"""One file a method. `SAMPLERS` is what the command line offers; inversion, which climbs, is apart."""

from unnoise.diffusion.samplers.ddim import Ddim, DdimInversion
from unnoise.diffusion.samplers.ddpm import Ddpm
from unnoise.diffusion.walk import Sampler

SAMPLERS: dict[str, type[Sampler]] = {"ddpm": Ddpm, "ddim": Ddim}

__all__ = ["SAMPLERS", "Ddim", "DdimInversion", "Ddpm"]

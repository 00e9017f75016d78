"""The samplers that the battery loops over: all of SAMPLERS, and with noise where they have an eta."""

from dataclasses import fields

from unnoise.diffusion.samplers import SAMPLERS

DETERMINISTIC = {name: cls() for name, cls in SAMPLERS.items() if cls.order is not None}
STOCHASTIC = {name: cls() for name, cls in SAMPLERS.items() if cls.order is None}
for name, cls in SAMPLERS.items():
    if "eta" in {field.name for field in fields(cls)}:
        STOCHASTIC |= {f"{name}-eta{eta}": cls(eta=eta) for eta in (0.5, 1.0)}
ALL = DETERMINISTIC | STOCHASTIC

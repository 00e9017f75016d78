"""The samplers that the battery loops over: all of SAMPLERS, and those that options make of them."""

from dataclasses import dataclass, fields

from unnoise.diffusion.samplers import SAMPLERS, Dpmpp3M, UniPc

DETERMINISTIC = {name: cls() for name, cls in SAMPLERS.items() if cls.order is not None}
DETERMINISTIC |= {"dpmpp-3m-full": Dpmpp3M(curvature=1), "unipc-3": UniPc(solver_order=3)}
STOCHASTIC = {name: cls() for name, cls in SAMPLERS.items() if cls.order is None}
for name, cls in SAMPLERS.items():
    if "eta" in {field.name for field in fields(cls)}:
        STOCHASTIC |= {f"{name}-eta{eta}": cls(eta=eta) for eta in (0.5, 1.0)}
ALL = DETERMINISTIC | STOCHASTIC


@dataclass(frozen=True)
class Convergence:
    """The order that a sampler must show, and where."""

    order: int
    first: float = -3.0
    """log(alpha / sigma) of the noisiest entry."""
    counts: tuple[int, ...] = (16, 32, 64, 128)
    above: float = 0.5
    """How much steeper than its order the slope may be, where the coarsest grids are very coarse."""


def convergence(name: str, kind: str) -> Convergence:
    """The sampler's own order, but where a method is known to do otherwise."""
    more = (32, 64, 128, 256)
    return {
        # Adams-Bashforth's weights are those of equal steps.
        ("plms", "alternating"): Convergence(1),
        # Its first step, of order 1, costs nothing where there is hardly any signal.
        ("dpmpp-3m", kind): Convergence(2, -8.0, more),
        ("dpmpp-3m-full", kind): Convergence(3, -8.0, more, above=0.7),
        # UniP-3 and UniC-3.
        ("unipc-3", kind): Convergence(4, -3.0, more),
    }.get((name, kind), Convergence(DETERMINISTIC[name].order))

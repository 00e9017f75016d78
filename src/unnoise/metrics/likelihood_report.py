"""A measured likelihood as text and as a self-contained page: the bound, its terms, rate and distortion."""

import math
from collections.abc import Iterator, Mapping

from unnoise import __version__, html
from unnoise.metrics.likelihood import Estimate, Likelihood


def lines(found: Likelihood) -> Iterator[str]:
    """The result for people."""
    yield f"{_with_error(found.total)} bits/dim, {_scope(found)}"
    yield (
        f"rate {found.rate:.4f} (prior {found.prior.mean:.2g}) + decoder {found.decoder:.4f}; told: "
        f"{found.conditioned}"
    )
    if not found.whole:
        yield f"warning: {_shorter(found)}"


def page(found: Likelihood, protocol: Mapping[str, str]) -> str:
    """The page. `protocol` says what was measured on what, for people."""
    terms, steps = found.terms.tolist(), list(found.timesteps)
    rows = [(f"{row.steps:,}", f"{row.rate:.5f}", f"{row.distortion:.3f}") for row in found.exchange]
    return html.page(
        f"{found.total.mean:.3f} bits per dimension",
        "What a lossless code built on the model needs at most for each pixel and channel of a picture; "
        f"measured by unnoise {__version__}.",
        html.facts(
            {
                "bits/dim": _with_error(found.total),
                "rate": f"{found.rate:.4f}",
                "decoder": f"{found.decoder:.4f}",
                "prior": f"{found.prior.mean:.2g}",
                "pictures": f"{found.pictures:,}",
                "steps": f"{len(steps):,} of {found.training_steps:,}",
            }
        ),
        *([] if found.whole else [html.paragraph(_shorter(found), warning=True)]),
        html.section(
            "Terms of the bound",
            html.line_chart(
                {"L_t": (steps, terms)},
                x_label="t",
                y_label="bits/dim",
                log_y=True,
                caption="L_t, the cost of the step from t; L_0 is the decoder. With the prior they add up.",
            ),
            html.line_chart(
                {
                    "predicted noise": (steps, found.eps_mse.tolist()),
                    "picture": (steps, found.x0_mse.tolist()),
                },
                x_label="t",
                y_label="mean square error",
                log_y=True,
                caption="What the network gets wrong: of the noise, and of the picture in [-1, 1].",
            ),
        ),
        html.section(
            "Rate and distortion",
            html.table(("reverse steps done", "rate, bits/dim", "distortion, RMSE of 0..255"), rows),
            html.line_chart(
                {"progressive code": (found.rates.tolist(), found.distortions.tolist())},
                x_label="rate, bits/dim",
                y_label="distortion, RMSE",
                caption="Sent so far, and what is wrong with the picture predicted from it (DDPM, Fig. 5).",
            ),
        ),
        html.section("Protocol", html.table(("", ""), [(key, text) for key, text in protocol.items()])),
    )


def _with_error(estimate: Estimate) -> str:
    error = "" if math.isnan(estimate.error) else f" ± {estimate.error:.4f}"
    return f"{estimate.mean:.4f}{error}"


def _scope(found: Likelihood) -> str:
    noun = "picture" if found.pictures == 1 else "pictures"
    return f"{found.pictures:,} {noun}, {len(found.timesteps):,} of {found.training_steps:,} steps"


def _shorter(found: Likelihood) -> str:
    return (
        f"the bound of a process of {len(found.timesteps):,} steps, not of the {found.training_steps:,} that "
        "published bounds take: another number, as a rule higher"
    )

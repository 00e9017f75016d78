"""Guidance identities on mixtures, where the classifier is exact, and what is off is off."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.analytic import Mixture
from unnoise.diffusion.condition import Condition, null
from unnoise.diffusion.guidance import (
    Strength,
    add_guides,
    classifier_free,
    classifier_guide,
    fold_guide,
    two_models,
)
from unnoise.diffusion.prediction import x0_from_eps
from unnoise.diffusion.schedule import NoiseSchedule, make_betas

SCHEDULE = NoiseSchedule.from_betas(make_betas("cosine", 100))
MIXTURE = Mixture(
    torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64),
    torch.tensor([0.1, 0.3, 0.2], dtype=torch.float64),
    torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64),
)
X = torch.randn(6, 2, 3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
AT = SCHEDULE.at(torch.tensor([1, 30, 60, 80, 95, 99]), X)
COND = Condition(label=torch.tensor([0, 1, 2, 0, 1, 2]))


def nothing(cond: Condition) -> Condition:
    return null(cond, {"label": None})


def unconditional(x, at, cond):
    return MIXTURE(x, at, Condition())


def classifier(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return MIXTURE.logits(x, SCHEDULE.at(t.round().long(), x))


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_mixture_with_the_exact_classifier_is_the_component() -> None:
    guided = fold_guide(unconditional, classifier_guide(classifier, 1.0))(X, AT, COND)
    component = MIXTURE(X, AT, COND)
    close(guided.eps, component.eps)
    close(guided.x0, component.x0)


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
def test_two_models_and_the_classifier_are_one(scale: float) -> None:
    """u + s (c - u) with exact models is the mixture folded with s times the exact classifier's gradient."""
    free = two_models(MIXTURE, unconditional, scale)(X, AT, COND)
    folded = fold_guide(unconditional, classifier_guide(classifier, scale))(X, AT, COND)
    close(free.eps, folded.eps)
    close(free.x0, folded.x0)
    close(free.x0, x0_from_eps(X, free.eps, AT))


class Labelled(nn.Module):
    """The mixture with label 3 for "none", counting calls; its prediction carries a variance."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, list[int]]] = []

    def forward(self, x, at, cond):
        self.calls.append((len(x), cond.label.tolist()))
        wider = Mixture(MIXTURE.means, MIXTURE.variances, MIXTURE.weights)
        told = wider(x, at, Condition(label=cond.label.clamp(max=2)))
        plain = wider(x, at, Condition())
        none = (cond.label == 3).view(-1, 1, 1, 1)
        fraction = cond.label.view(-1, 1, 1, 1).to(x).expand_as(x)
        return replace(
            told,
            x0=torch.where(none, plain.x0, told.x0),
            eps=torch.where(none, plain.eps, told.eps),
            var_fraction=fraction,
        )


def test_classifier_free_is_one_call_with_the_unconditional_half_first() -> None:
    model = Labelled()
    guided = classifier_free(model, lambda cond: null(cond, {"label": 3}), 2.5)(X, AT, COND)
    assert model.calls == [(12, [3] * 6 + COND.label.tolist())]
    close(guided.eps, two_models(MIXTURE, unconditional, 2.5)(X, AT, COND).eps)
    close(guided.x0, x0_from_eps(X, guided.eps, AT))
    assert torch.equal(guided.var_fraction[:, 0, 0, 0], COND.label.to(X)), (
        "the variance is the conditional one"
    )


def test_off_scales_are_off() -> None:
    model = Labelled()
    assert classifier_free(model, nothing, 1.0) is model
    assert two_models(model, unconditional, 1.0) is model
    guide = classifier_guide(lambda x, t: pytest.fail("called"), 0.0)
    assert (guide(X, AT, COND) == 0).all()


def test_intervals() -> None:
    """Outside the interval the prediction is the conditional one; with none inside nothing else runs."""
    sigma_ve = (1 / AT.alpha_bar - 1).sqrt()
    low, high = sigma_ve[1].item(), sigma_ve[3].item()
    inside = torch.tensor([False, False, True, True, False, False])
    assert torch.equal(Strength(low, high).share(AT) > 0, inside)
    drop = lambda cond: null(cond, {"label": 3})  # noqa: E731
    part = classifier_free(Labelled(), drop, 2.5, strength=Strength(low, high))(X, AT, COND)
    whole = classifier_free(Labelled(), drop, 2.5)(X, AT, COND)
    off = Labelled()(X, AT, COND)
    for row in range(6):
        close(part.eps[row], (whole if inside[row] else off).eps[row])
        close(part.x0[row], (whole if inside[row] else off).x0[row])
    model = Labelled()
    never = Strength(1e6, 1e7)
    close(classifier_free(model, drop, 2.5, strength=never)(X, AT, COND).eps, off.eps)
    assert model.calls == [(6, COND.label.tolist())]
    worse = two_models(Labelled(), lambda *_: pytest.fail("called"), 2.5, strength=never)
    close(worse(X, AT, COND).eps, off.eps)
    guide = classifier_guide(classifier, 2.0, strength=Strength(low, high))(X, AT, COND)
    assert (guide[~inside] == 0).all()
    close(guide[inside], classifier_guide(classifier, 2.0)(X, AT, COND)[inside])
    with pytest.raises(ValueError, match="empty"):
        Strength(2.0, 1.0)


@pytest.mark.parametrize("course", ["linear", "cosine"])
def test_courses_rise_as_noise_falls(course: str) -> None:
    """Rows have decreasing noise upwards; the guidance is the constant one at scale 1 + share (scale - 1)."""
    share = Strength(course=course).share(AT)
    assert ((share >= 0) & (share <= 1)).all() and (share.diff() < 0).all()
    half = SCHEDULE.respaced([(SCHEDULE.alpha_bar - 0.5).abs().argmin().item()]).at(0, X[:1])
    assert Strength(course=course).share(half).item() == pytest.approx(0.5, abs=0.02)
    drop = lambda cond: null(cond, {"label": 3})  # noqa: E731
    rising = classifier_free(Labelled(), drop, 2.5, strength=Strength(course=course))(X, AT, COND)
    guided = classifier_guide(classifier, 2.0, strength=Strength(course=course))(X, AT, COND)
    for row in range(6):
        scale = 1 + share[row].item() * 1.5
        close(rising.eps[row], classifier_free(Labelled(), drop, scale)(X, AT, COND).eps[row])
        close(guided[row], classifier_guide(classifier, 2.0 * share[row].item())(X, AT, COND)[row])
    with pytest.raises(ValueError, match="course='square'"):
        Strength(course="square")


def test_two_models_tells_the_other_what_it_should() -> None:
    seen = []

    def worse(x, at, cond):
        seen.append(cond.label)
        return MIXTURE(x, at, cond)

    two_models(MIXTURE, worse, 2.0)(X, AT, COND)
    two_models(MIXTURE, worse, 2.0, null=nothing)(X, AT, COND)
    assert seen[0] is COND.label and seen[1] is None


def test_classifier_guide_is_float32_frozen_and_leaves_no_trace() -> None:
    class Judge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(18, 3)
            self.fixed = nn.Parameter(torch.ones(()), requires_grad=False)

        def forward(self, x, t):
            assert torch.is_grad_enabled() and not any(p.requires_grad for p in self.parameters())
            assert x.dtype == torch.float32
            hidden = self.inner(x.flatten(1))
            assert hidden.dtype == torch.float32, "autocast is off"
            return hidden * self.fixed

    judge = Judge()
    x = X.float()
    at = SCHEDULE.at(AT.i, x)
    guide = classifier_guide(judge, 2.0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        got = guide(x.bfloat16(), at, COND)
    assert got.dtype == torch.float32 and not got.requires_grad
    assert judge.inner.weight.requires_grad and not judge.fixed.requires_grad
    assert judge.inner.weight.grad is None
    weight = judge.inner.weight.detach()
    share = judge_softmax(judge, x.bfloat16().float())
    wanted = 2 * (weight[COND.label] - share @ weight)
    torch.testing.assert_close(got.flatten(1), wanted, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="no label"):
        guide(x, at, Condition())


def judge_softmax(judge: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return judge.inner(x.flatten(1)).softmax(1)


def test_guides_add() -> None:
    one, two = classifier_guide(classifier, 1.0), classifier_guide(classifier, 2.5)
    close(add_guides(one, two)(X, AT, COND), classifier_guide(classifier, 3.5)(X, AT, COND))


def test_folding_takes_the_mean_away_and_keeps_the_variance() -> None:
    def says_mean(x, at, cond):
        return replace(MIXTURE(x, at, Condition()), mean=x, log_variance=2 * x)

    folded = fold_guide(says_mean, classifier_guide(classifier, 1.0))(X, AT, COND)
    assert folded.mean is None and torch.equal(folded.log_variance, 2 * X)

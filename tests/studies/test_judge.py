"""What a model has lost: classes and clusters that a judge no longer finds, samples that repeat."""

import pytest
import torch

from unnoise.studies.judge import LOST, judge_of_classes, judge_of_clusters, repeats

CENTRES = torch.tensor([[0.0, 0, 0], [10, 0, 0], [0, 10, 0], [0, 0, 10]])


def cloud(label: torch.Tensor, seed: int = 0, spread: float = 1.0) -> torch.Tensor:
    noise = torch.randn(len(label), 3, generator=torch.Generator().manual_seed(seed))
    return CENTRES[label] + spread * noise


def of(*counts: int) -> torch.Tensor:
    return torch.cat([torch.full((count,), k) for k, count in enumerate(counts)])


def test_classes_that_are_missing_are_lost_and_rare_ones_are_not() -> None:
    label = of(100, 100, 100, 100)
    judge = judge_of_classes(cloud(label), label, 4, seed=0)
    assert judge.accuracy is not None and judge.accuracy > 0.98
    assert judge.lost(cloud(label, seed=1)) == 0
    assert judge.lost(cloud(of(130, 130, 140, 0), seed=1)) == 1
    assert judge.lost(cloud(of(400, 0, 0, 0), seed=1)) == 3
    few = round(2 * LOST * 100)
    assert judge.lost(cloud(of(190, 190, 400 - 380 - few + few, few), seed=1)) == 0
    # A class that is rare among the real pictures may be rare among the drawn ones.
    rare = of(300, 300, 300, 12)
    assert judge_of_classes(cloud(rare), rare, 4, seed=0).lost(cloud(of(100, 100, 100, 4), seed=1)) == 0


def test_only_classes_that_were_asked_for_can_be_lost() -> None:
    label = of(100, 100, 100, 100)
    judge = judge_of_classes(cloud(label), label, 4, seed=0)
    asked = torch.tensor([0.5, 0.5, 0, 0])
    assert judge.lost(cloud(of(100, 100, 0, 0), seed=1), asked) == 0
    assert judge.lost(cloud(of(100, 0, 0, 0), seed=1), asked) == 1


def test_the_score_is_the_number_of_classes_for_sure_and_balanced_answers() -> None:
    label = of(200, 200, 200, 200)
    judge = judge_of_classes(cloud(label), label, 4, seed=0)
    assert judge.score(cloud(label, seed=1)) == pytest.approx(4, abs=0.15)
    assert judge.score(cloud(of(200, 200, 0, 0), seed=1)) == pytest.approx(2, abs=0.1)


def test_clusters_stand_in_for_classes() -> None:
    real = cloud(of(100, 100, 100, 100))
    judge = judge_of_clusters(real, seed=0)
    assert judge.accuracy is None and len(judge.real) == 16
    nearest = judge.probs(real).argmax(1)
    assert torch.equal(torch.bincount(nearest, minlength=16).double() / 400, judge.real)
    assert judge.lost(cloud(of(100, 100, 100, 100), seed=1)) <= 1
    assert judge.lost(cloud(of(200, 200, 0, 0), seed=1)) >= 6
    assert len(judge_of_clusters(real[:30], seed=0).real) == 2


def test_samples_that_repeat_others() -> None:
    real, fresh = cloud(of(200, 200, 200, 200)), cloud(of(100, 100, 100, 100), seed=1)
    assert repeats(real, fresh, seed=0) < 0.2
    twice = torch.cat([fresh[::2], fresh[::2] + 1e-3])
    assert repeats(real, twice, seed=0) == 1.0

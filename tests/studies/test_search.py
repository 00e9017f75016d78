"""`unnoise search-steps`: the search itself, the comparison on fresh noise, continuing, refusals."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from tests.metrics.double import double  # noqa: F401
from tests.models import tiny_model
from tests.studies.conftest import FAST
from tests.test_html import Strict
from unnoise.cli.sample import Stopped
from unnoise.config.requests import GenerateRequest
from unnoise.config.studies import SearchRequest
from unnoise.metrics.intervals import frechet_difference_error, frechet_error
from unnoise.metrics.statistics import Moments
from unnoise.planning import plan
from unnoise.studies import search
from unnoise.studies.search import best_of, calls_of, climb, equal, neighbours, steps_within
from unnoise.studies.searched import Compared, Search

SEARCH = [
    *("search-steps", "run", "--against", "real.npz", "--out", "s", "--calls", 5, "--sections", 2),
    *("-n", 8, "--final", 10, *FAST),
]


@pytest.mark.parametrize("target", [(90, 60, 60, 20, 20), (10, 10, 10, 10, 210), (50, 50, 50, 50, 50)])
def test_the_best_counts_are_found_where_the_distance_is_known(target):
    def distance(counts, n):
        return sum((a - b) ** 2 for a, b in zip(counts, target, strict=True)) + 1000 / n

    path = list(climb(equal(250, 5), [250] * 5, distance, 512))
    assert path[0] == ((50,) * 5, 0) and path[-1][0] == target
    values = [distance(counts, 512) for counts, _ in path]
    assert values == sorted(values, reverse=True)


def test_no_section_is_emptied_or_overfilled():
    found = list(neighbours((1, 5, 3), 1, (4, 5, 4)))
    assert set(found) == {(2, 4, 3), (2, 5, 2), (1, 4, 4)}


def test_equal_counts_add_up():
    assert equal(250, 5) == (50,) * 5
    assert equal(27, 5) == (5, 5, 5, 6, 6)


def test_halving_measures_few_on_all_pictures_and_keeps_the_holder_of_the_title():
    seen = []

    def distance(counts, n):
        seen.append((counts, n))
        return counts[0] if n == 100 else -counts[0]  # few pictures mislead

    rivals = [(k,) for k in range(27)]
    assert best_of(rivals, distance, 100) == (0,)
    assert len({c for c, n in seen if n == 100}) == 5  # a third of a third, and the holder


@pytest.mark.parametrize(
    ("sampler", "calls"),
    [("ddim", 5), ("ddpm", 5), ("heun", 9), ("plms", 6), ("dpmpp-2m", 5), ("unipc", 5)],
)
def test_calls_are_counted_and_a_budget_becomes_steps(sampler, calls):
    model = tiny_model()
    request = GenerateRequest(sampler=sampler, steps="5")
    assert calls_of(plan(model, request)) == calls
    for spare in range(2 if sampler == "heun" else 1):
        assert steps_within(calls + spare, model, SearchRequest(generate=request)) == 5


def test_paired_differences_are_surer_than_two_intervals():
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(400, 6, generator=generator)
    real = Moments.of(torch.randn(4000, 6, generator=generator) + 0.3).gaussian()
    near = first + 0.05 * torch.randn(400, 6, generator=generator)
    other = torch.randn(400, 6, generator=generator)
    alone = frechet_error(real=real, fake=first)
    assert frechet_difference_error(real=real, first=first, second=first) == 0
    assert frechet_difference_error(real=real, first=first, second=near) < 0.3 * alone
    assert frechet_difference_error(real=real, first=first, second=other) > 0.7 * alone


def test_numbers_page_and_fresh_noise(unnoise, place):
    code, said, complaints = unnoise(*SEARCH, "--beside", "trailing5")
    assert code == 0, complaints
    found = json.loads((place / "s" / "search.json").read_text())
    assert sum(found["path"][-1]) == 5 and found["steps"] == 5
    assert found["found"] == ",".join(map(str, found["path"][-1])) and found["verdict"] in said
    assert [c["steps"] for c in found["compared"]][:1] == ["5"] and "trailing5" in said
    seeds = {}
    for file in (place / "s" / "features").iterdir():
        with safe_open(file, "pt") as content:
            facts = content.metadata()
        seeds.setdefault(facts["seed"], set()).add(facts["steps"])
    assert seeds["1"] == {"5", found["found"], "trailing5"}
    assert {",".join(map(str, t["counts"])) for t in found["trials"]} == seeds["0"]
    text = (place / "s" / "search.html").read_text()
    parser = Strict()
    parser.feed(text)
    assert parser.open == [] and found["found"] in text and "no measure of it" in text


def test_an_interrupted_search_continues_and_draws_nothing_twice(unnoise, place, monkeypatch, double):  # noqa: F811
    assert unnoise(*SEARCH)[0] == 0
    whole, calls = json.loads((place / "s" / "search.json").read_text()), double.calls
    assert unnoise(*SEARCH)[0] == 0 and double.calls == calls
    write, written = search.write_tensors, []

    def stop_at_the_fifth(path, *rest):
        write(path, *rest)
        written.append(path)
        if len(written) == 5:
            raise Stopped(15)

    monkeypatch.setattr(search, "write_tensors", stop_at_the_fifth)
    there = [*SEARCH, "--out", "t"]
    double.calls = 80  # the reference is in the cache
    assert unnoise(*there)[0] == 143 and not (place / "t" / "search.json").exists()
    assert unnoise(*there)[0] == 0
    assert double.calls == calls
    assert json.loads((place / "t" / "search.json").read_text()) == whole


def result(change, error):
    found = Compared("9,1", 5 + change, 0.5, change, error)
    return Search(
        request=SearchRequest(), steps=10, metric="FD[x]", path=((5, 5), (9, 1)), trials=(),
        compared=(Compared("10", 5, 0.5, 0, 0), found), warnings=(),
    )  # fmt: skip


def test_the_verdict_is_honest():
    assert "--steps 9,1 beats --steps 10" in result(-0.4, 0.3).verdict()
    assert "not beaten beyond the interval" in result(-0.2, 0.3).verdict()
    assert "9,1 is worse on fresh noise" in result(0.4, 0.3).verdict()
    same = replace(result(0, 0), path=((5, 5),))
    assert "not beaten" in same.verdict()


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--calls", 0], "calls=0 is less than 1"),
        (["--sections", 1], "sections=1 is less than 2"),
        (["--calls", 1], "1 steps do not divide among 2 sections"),
        (["--calls", 200, "--sections", 101], "do not divide among 101 sections"),
        (["--sections", 10**12], "do not divide among 1000000000000 sections"),
        (["-n", 4], "n=4 is less than 8"),
        (["-n", 10**12], "n=1,000,000,000,000 is more than can be measured"),
        (["--final", 10**12], "final=1,000,000,000,000 is more than can be measured"),
        (["--set", "data.crop=random"], "it sets how pictures are read"),
        (["--out", "real.npz"], "real.npz is a file; name a folder for the search"),
        (["--set", "steps=5"], "give --calls"),
        (["--set", "guidence=5"], 'did you mean "guidance"'),
        (["--beside", "7"], "steps 7 take 7 calls, the budget is 5"),
        (["--beside", "hex7"], "is not a respacing"),
        (["--against", "nowhere"], "nowhere"),
        (["--against", "rgb.npz"], "channels"),
    ],
)
def test_refused_in_one_line_before_anything_is_drawn(unnoise, place, args, reason):
    code, said, complaints = unnoise(*SEARCH, *args)
    assert code == 2 and said == "" and complaints.count("\n") == 1, complaints
    assert reason in complaints
    assert not (place / "s").exists()


def test_a_model_that_is_not_there(unnoise, place):
    code, _, complaints = unnoise("search-steps", "nothing", *SEARCH[2:])
    assert code == 2 and "nothing does not exist" in complaints

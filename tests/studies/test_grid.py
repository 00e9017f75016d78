"""Grids over the options of drawing, from their texts."""

import dataclasses

import pytest

from unnoise.config.requests import GenerateRequest
from unnoise.studies.grid import OPTIONS, cells, read_axes, split, with_options


def test_every_option_that_changes_pictures_is_an_axis():
    fields = {f.name for f in dataclasses.fields(GenerateRequest)}
    assert fields - set(OPTIONS) == {"n", "first", "batch_size", "device"}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("guidance=1, 1.5,2", (1.0, 1.5, 2.0)),
        ("steps=10,ddim25", ("10", "ddim25")),
        ("steps=25;90,60,60,20,20", ("25", "90,60,60,20,20")),
        ("labels=sneaker,[sandal, bag]", (("sneaker",), ("sandal", "bag"))),
        ("exact=true,false", (True, False)),
        ("clip=static,dynamic", ("static", "dynamic")),
        ("seed=0,1", (0, 1)),
    ],
)
def test_values_have_the_type_of_their_option(text, values):
    (axis,) = read_axes([text])
    assert axis.values == values
    assert [type(v) for v in axis.values] == [type(v) for v in values]


def test_models_are_found_by_pattern(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b", "a"):
        (tmp_path / name).touch()
    assert read_axes(["model=[ab],c"])[0].texts == ("a", "b", "c")


def test_every_combination_once_one_model_after_the_other():
    axes = read_axes(["guidance=1,2", "steps=5,10"])
    found = list(cells(["x", "y"], axes, GenerateRequest(seed=7)))
    assert len(found) == 8 and [c.model for c in found] == ["x"] * 4 + ["y"] * 4
    assert len({(c.model, c.request) for c in found}) == 8
    assert {c.request.seed for c in found} == {7}
    assert found[1].name(["guidance", "steps"]) == "guidance=1, steps=10"
    assert found[1].request == GenerateRequest(seed=7, guidance=1.0, steps="10")


def test_commas_in_brackets_belong_to_their_value():
    assert split("[1, 2],3") == ["[1, 2]", "3"]


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["guidence=1"], 'guidence: no such option; did you mean "guidance"'),
        (["guidance"], "write it as option=value,value"),
        (["guidance="], "has no values"),
        (["guidance=1,1"], "the value 1 twice"),
        (["guidance=1", "guidance=2"], "names guidance twice"),
        (["guidance=strong"], "guidance = 'strong'"),
        (["clip=hard"], "clip = 'hard'"),
        (["batch_size=1,2"], "changes no picture"),
    ],
)
def test_refusals(texts, reason):
    with pytest.raises(ValueError, match=".*") as caught:
        read_axes(texts)
    assert reason in str(caught.value)


def test_options_that_are_the_same_everywhere():
    assert with_options(GenerateRequest(), ["steps=9", "eta=0.5"]) == GenerateRequest(steps="9", eta=0.5)
    with pytest.raises(ValueError, match="no such option"):
        with_options(GenerateRequest(), ["step=9"])

"""Conditions: dropped field by field, laid together, cut apart."""

import pytest
import torch

from unnoise.diffusion.condition import Condition, cat, null

FULL = Condition(
    label=torch.tensor([1, 2, 3]),
    context=torch.randn(3, 5, 4),
    context_mask=torch.ones(3, 5, dtype=torch.bool),
    concat=torch.randn(3, 2, 4, 4),
    level=torch.tensor([0.0, 0.5, 1.0]),
    parts={"text": torch.arange(6).view(3, 2), "map": torch.randn(3, 1, 4, 4)},
)


def test_null_replaces_only_what_is_named() -> None:
    dropped = null(FULL, {"label": 10})
    assert dropped.label.tolist() == [10, 10, 10] and dropped.label.dtype == torch.int64
    assert dropped.context is FULL.context and dropped.concat is FULL.concat
    assert FULL.label.tolist() == [1, 2, 3]
    assert null(FULL, {"context": None, "context_mask": None}).context is None
    empty = torch.zeros(5, 4)
    assert torch.equal(null(FULL, {"context": empty}).context, torch.zeros(3, 5, 4))


def test_null_of_some_rows() -> None:
    where = torch.tensor([False, True, False])
    dropped = null(FULL, {"label": 10, "concat": 0.0}, where=where)
    assert dropped.label.tolist() == [1, 10, 3]
    assert torch.equal(dropped.concat[[0, 2]], FULL.concat[[0, 2]]) and (dropped.concat[1] == 0).all()


def test_parts_drop_by_name_each_for_itself() -> None:
    where = torch.tensor([True, False, False])
    dropped = null(FULL, {"text": torch.tensor([8, 9]), "label": 0}, where=where)
    assert dropped.parts["text"].tolist() == [[8, 9], [2, 3], [4, 5]] and dropped.label.tolist() == [0, 2, 3]
    assert dropped.parts["map"] is FULL.parts["map"] and FULL.parts["text"][0].tolist() == [0, 1]


def test_cat_and_take_are_inverse() -> None:
    both = cat([FULL, null(FULL, {"label": 0})])
    assert both.label.tolist() == [1, 2, 3, 0, 0, 0]
    again = both.take(slice(0, 3))
    assert again.parts.keys() == FULL.parts.keys()
    for name, value in [*vars(again).items(), *again.parts.items()]:
        if name != "parts":
            assert torch.equal(value, FULL.parts[name] if name in FULL.parts else getattr(FULL, name))
    assert both.take(torch.tensor([5, 1])).label.tolist() == [0, 2]
    assert vars(cat([Condition(), Condition()])) == vars(Condition())


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: null(FULL, {"lable": 1}), "use label"),
        (lambda: null(Condition(), {"label": 1}), "has no label"),
        (lambda: null(FULL, {"label": None}, where=torch.ones(3, dtype=torch.bool)), "null value"),
        (lambda: null(FULL, {"text": None}), "null value"),
        (lambda: cat([FULL, Condition(label=FULL.label)]), "only some"),
    ],
)
def test_refusals(call, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()

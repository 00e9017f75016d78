"""Class names as people type them."""

import pytest

from unnoise.classes import find_class, slug

FASHION = ("T-shirt/top", "Trouser", "Pullover", "Shirt", "Sneaker", "Bag", "Ankle boot")


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ("Sneaker", 4), ("sneaker", 4), ("SNEAKER", 4), ("sneak", 4), ("4", 4),
        ("Ankle boot", 6), ("ankle-boot", 6), ("ankle_boot", 6), ("ank", 6),
        ("t-shirt", 0), ("T-shirt/top", 0), ("tshirt", None), ("shirt", 3), ("b", 5),
    ],
)  # fmt: skip
def test_find_class(wanted, index):
    if index is None:
        with pytest.raises(ValueError, match=r"T-shirt/top"):
            find_class(wanted, FASHION)
    else:
        assert find_class(wanted, FASHION) == index


def test_names_that_are_numbers_come_before_indices():
    digits = ("0", "10", "2")
    assert [find_class(d, digits) for d in ("0", "10", "2", "1")] == [0, 1, 2, 1]


def test_names_that_differ_in_case_alone_need_theirs():
    assert find_class("a", ("A", "a")) == 1
    with pytest.raises(ValueError, match="may be"):
        find_class("ab", ("ABc", "abd"))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("sandal", ["unknown", "Sneaker", "Ankle boot"]),
        ("sneeker", ["did you mean Sneaker?"]),
        ("7", ["0..6"]),
        ("-1", ["unknown"]),
        ("", ["unknown"]),
        ("t", ["T-shirt/top or Trouser", "write more"]),
    ],
)
def test_refusals_name_the_way_out(wanted, words):
    with pytest.raises(ValueError) as error:
        find_class(wanted, FASHION)
    for word in words:
        assert word in str(error.value)


def test_a_thousand_classes_are_not_all_listed():
    with pytest.raises(ValueError) as error:
        find_class("zebra", [f"class {i}" for i in range(1000)])
    assert "1000 classes" in str(error.value) and len(str(error.value)) < 400


def test_slug():
    assert slug("  T-shirt/top ") == "t-shirt-top" and slug("Größe_3") == "größe-3"

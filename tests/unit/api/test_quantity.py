from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import quantity


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("1000m", "1"), ("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"), ("0.1", "100m"), ("2e3", "2e3"), ("1500m", "1500m"),
     ("0", "0"), ("1Ki", "1Ki"), ("1.5k", "1500"), (".5", "500m"), ("1n", "1n"), ("0.5n", "1n"), ("-1", "-1"), ("0Mi", "0")],
)  # fmt: skip
def test_canonical_form(text, canonical):
    assert quantity.canonical(text) == canonical


@pytest.mark.parametrize("text", ["", "1x", "m", "1 Gi", "1..2", "Gi1", "1e", "--1", "٣"])
def test_what_is_no_quantity_is_refused(text):
    assert not quantity.is_valid(text)
    with pytest.raises(ValueError, match="no quantity"):
        quantity.parse(text)


@given(
    st.integers(0, 10**6), st.sampled_from(["", "n", "u", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e3", "E2"]),
)  # fmt: skip
def test_canonical_keeps_the_value_and_is_stable(number, suffix):
    text = f"{number}{suffix}"
    once = quantity.canonical(text)
    assert quantity.parse(once) == quantity.parse(text)
    assert quantity.canonical(once) == once


def test_rounding_is_up():
    assert quantity.cpu_millis("0.0001") == 1
    assert quantity.whole("1.5") == 2
    assert quantity.parse("1.5Gi") == Fraction(3, 2) * 2**30

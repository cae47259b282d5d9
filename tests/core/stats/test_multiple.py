"""Adjusted p-values against statsmodels."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from pytest_llmparity.core.stats.multiple import benjamini_hochberg, holm

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=20)


@given(p_values)
@settings(max_examples=12, deadline=None)
def test_holm_agrees_with_statsmodels(p: list[float]) -> None:
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1].tolist(), abs=1e-12)


@given(p_values)
@settings(max_examples=12, deadline=None)
def test_benjamini_hochberg_agrees_with_statsmodels(p: list[float]) -> None:
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1].tolist(), abs=1e-12)


def test_no_tests_no_values() -> None:
    assert holm([]) == []
    assert benjamini_hochberg([]) == []


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_what_is_no_p_value_is_refused(adjust: object, wrong: float) -> None:
    assert callable(adjust)
    with pytest.raises(ValueError, match=r"lies in 0\.\.1"):
        adjust([0.5, wrong])

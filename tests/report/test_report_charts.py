"""Charts: axes, room for names, and numbers as words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabatlas.report.heatmap import lay_out_heatmap
from tabatlas.report.scale import fit_axis, fit_score_axis
from tabatlas.report.scatter import N_HUES, draw_scatter, rank_groups
from tabatlas.report.wording import (
    format_count,
    format_interval,
    format_mebibytes,
    format_percent,
    format_score,
    format_seconds,
    format_value,
    measure_label,
    shorten_label,
)

FINITE = st.floats(-1e9, 1e9).filter(lambda value: value == 0 or abs(value) > 1e-6)


@given(st.lists(FINITE, max_size=20))
def test_axis_holds_every_value_between_its_ends(values):
    axis = fit_axis(values, 10, 110)
    assert axis.low < axis.high
    assert 2 <= len(axis.ticks) <= 8
    for value in values:
        assert 9.9 <= axis.at(value) <= 110.1


def test_ticks_are_round_and_labelled_alike():
    axis = fit_axis([0.61, 0.96], 0, 100)
    assert [axis.word(tick) for tick in axis.ticks] == ["0.6", "0.7", "0.8", "0.9", "1.0"]


def test_epochs_have_no_fractions():
    axis = fit_axis([1, 2], 0, 100, least_step=1)
    assert all(tick == int(tick) for tick in axis.ticks)


def test_score_far_below_the_others_does_not_squeeze_them():
    near, far = {"value": 0.94, "low": 0.92, "high": 0.95}, {"value": 0.05, "low": 0, "high": 0.1}
    assert fit_score_axis([near, far], 0, 100) == fit_score_axis([near], 0, 100)
    assert fit_score_axis([near, far], 0, 100).low > 0.8


def test_score_of_zero_has_an_axis():
    axis = fit_score_axis([{"value": 0.0, "low": None, "high": None}], 0, 100)
    assert axis.low <= 0 <= axis.high


def test_squares_shrink_as_types_grow_more():
    few, many = ([f"type {i}" for i in range(n)] for n in (8, 150))
    assert lay_out_heatmap(few, few).has_numbers
    assert not lay_out_heatmap(many, many).has_numbers
    assert lay_out_heatmap(many, many).wide < lay_out_heatmap(few, few).wide


@pytest.mark.parametrize("label", ["x" * 300, "細胞" * 40, "line\nbreak " * 30])
def test_long_label_is_cut_to_its_width_on_one_line(label):
    short = shorten_label(label, 34)
    assert measure_label(short) <= 34
    assert short.endswith("…")
    assert "\n" not in short


def test_short_label_stays_whole():
    assert shorten_label("B cell", 6) == "B cell"


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (format_count(12345), "12,345"),
        (format_count(None), "–"),
        (format_score(-0.0123), "−0.012"),
        (format_interval({"low": 0.1, "high": 0.25}), "0.100 to 0.250"),
        (format_interval({"low": None, "high": None}), "–"),
        (format_percent(0.0001), "<0.1 %"),
        (format_percent(0.9999), ">99.9 %"),
        (format_percent(1), "100 %"),
        (format_seconds(59.94), "59.9 s"),
        (format_seconds(3725), "1 h 02 min"),
        (format_seconds(125), "2 min 05 s"),
        (format_mebibytes(2048), "2.0 GiB"),
        (format_value([True, None, ""]), "[true, null, '']"),
    ],
)
def test_numbers_are_worded(shown, words):
    assert shown == words


def test_the_commonest_groups_have_hues_and_the_rest_is_gray():
    labels = [f"type {i}" for i in range(12) for _ in range(20 - i)]
    groups = rank_groups(labels, "type")
    assert len(groups) == N_HUES
    assert groups[0].name == "type 0"
    assert [group.kind for group in groups[-2:]] == ["hue6", "rest"]
    assert groups[-1].name == "5 rarer types"
    assert sum(group.n_cells for group in groups) == len(labels)
    assert rank_groups(["a", "b"], "batch")[-1].kind == "hue1"


def test_every_cell_is_a_dot_within_the_picture_and_no_group_lies_on_top():
    labels = ["a", "b"] * 60
    groups = rank_groups(labels, "batch")
    dots = draw_scatter(list(range(120)), [-3.5] * 120, labels, groups)
    places = [one for part in dots for one in part.path.removeprefix("M").split("h0M")]
    assert len(places) == 120
    for place in places:
        assert all(0 <= float(number) <= 240 for number in place.removesuffix("h0").split())
    assert len({part.group.kind for part in dots[-2:]}) == 2


def test_a_picture_of_no_cell_is_empty():
    assert draw_scatter([], [], [], rank_groups([], "type")) == []

"""The view of an update and its rank: the maps add up, and the controls move picture and words."""

import base64
import re

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("Agg")
from sft_lab.course.views.rank import (
    describe_rank,
    draw_rank,
    explore_rank,
)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


def random_update(seed: int, shape: tuple[int, int] = (12, 7)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_parameters_are_those_of_two_thin_linear_layers():
    thin = [torch.nn.Linear(7, 3, bias=False), torch.nn.Linear(3, 12, bias=False)]
    numbers = sum(layer.weight.numel() for layer in thin)
    said = f"LoRA of rank 3 learns {numbers} numbers, the full matrix has 84"
    assert said in describe_rank("up_proj", random_update(0), 3)


def test_the_words_name_layer_rank_energy_error_and_parameters():
    update = torch.diag(torch.tensor([2.0, 1.0, 0.0]))
    sentence = describe_rank("up_proj", update, 1)
    for part in (
        "up_proj, 3 × 3",
        "1 of 3 singular values keep 80%",
        "error is 45%",
        "learns 6",
        "has 9: 67%",
    ):
        assert part in sentence


def test_the_maps_hold_the_update_its_approximation_and_the_difference():
    update = random_update(1)
    maps = [ax.images[0].get_array() for ax in draw_rank("up_proj", update, 2).axes if ax.images]
    assert len(maps) == 3
    np.testing.assert_allclose(maps[0], maps[1] + maps[2], atol=1e-5)
    assert np.linalg.matrix_rank(maps[1], tol=1e-4) == 2
    np.testing.assert_allclose(np.sort(maps[0].flatten()), np.sort(update.numpy().flatten()))


def test_the_kept_singular_values_are_marked_by_more_than_colour():
    figure = draw_rank("up_proj", random_update(1), 2)
    (spectrum,) = [
        ax for ax in figure.axes if "singular values" in (ax.get_title(), ax.get_title("left"))
    ]
    kept, dropped = spectrum.collections
    assert (len(kept.get_offsets()), len(dropped.get_offsets())) == (2, 5)
    assert [text.get_text() for text in spectrum.get_legend().get_texts()] == ["kept", "dropped"]
    assert dropped.get_facecolor()[0].tolist() == [1, 1, 1, 1] != kept.get_facecolor()[0].tolist()


@pytest.mark.parametrize("rank", [1, 7], ids=["lowest", "full"])
def test_both_ends_of_the_slider_can_be_drawn(rank):
    assert f"rank {rank} of 7" in draw_rank("up_proj", random_update(1), rank).get_suptitle()


def test_an_update_that_is_zero_is_refused_with_its_likely_cause():
    for action in (describe_rank, draw_rank):
        with pytest.raises(ValueError, match="up_proj.*nothing was trained"):
            action("up_proj", torch.zeros(4, 3), 1)


def test_the_controls_move_picture_and_words():
    updates = {"q_proj": random_update(1), "k_proj": random_update(2, (4, 7))}
    (controls, picture, words) = explore_rank(updates, rank=3).children
    layers, slider = controls.children
    assert (slider.value, slider.max) == (3, 7) and describe_rank(
        "q_proj", updates["q_proj"], 3
    ) in words.value
    seen = {picture.value}
    slider.value = 6
    assert describe_rank("q_proj", updates["q_proj"], 6) in words.value
    seen.add(picture.value)
    layers.value = "k_proj"  # a smaller layer: the rank goes down to what it can have
    assert (slider.value, slider.max) == (4, 4)
    assert describe_rank("k_proj", updates["k_proj"], 4) in words.value
    seen.add(picture.value)
    assert len(seen) == 3
    alt, source = re.match(
        r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)"', picture.value
    ).groups()
    assert alt == describe_rank("k_proj", updates["k_proj"], 4)
    assert base64.b64decode(source).startswith(b"\x89PNG")


def test_a_view_of_no_layer_or_a_rank_it_cannot_have_is_refused():
    with pytest.raises(ValueError, match="no layer"):
        explore_rank({})
    with pytest.raises(ValueError, match="rank is 9"):
        explore_rank({"q_proj": random_update(1)}, rank=9)

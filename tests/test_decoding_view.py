"""The view of decoding: words and bars are the bent logits, the text grows, the buttons move
both."""

import matplotlib
import pytest
import torch

matplotlib.use("Agg")
from sft_lab.course import decoding_runs as runs
from sft_lab.course.results import read_results
from sft_lab.course.views import decoding as view
from sft_lab.decoding import NoRepeatNgram, RepetitionPenalty, TopK
from sft_lab.models import load

PROMPT = "The capital of Kenya is Nairobi."


@pytest.fixture(scope="module")
def atlas_base():
    return load("atlas-base")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


@pytest.fixture
def step(atlas_base):
    model, tokenizer = atlas_base
    text = view.Text.begin(PROMPT, tokenizer)
    return tokenizer, text, view.read_logits(model, text)


def test_processors_stand_in_the_order_of_transformers():
    names = [type(one).__name__ for one in view.make_processors(0.7, "top-k 5", "repetition 1.3")]
    assert names == ["RepetitionPenalty", "Temperature", "TopK"]
    with pytest.raises(KeyError):
        view.make_processors(1.0, "top-k 6", "none")


def test_bars_are_probabilities_before_and_after_and_a_cross_is_forbidden(step):
    tokenizer, text, logits = step
    after = view.bend(logits, text, [TopK(3)])
    ax = view.draw_step(tokenizer, text, logits, {"top-k 3": after}, "title").axes[0]
    widths = [bar.get_width() for bar in ax.patches]
    best = logits.softmax(0).topk(view.SHOWN)
    expected = [*best.values, *after.softmax(0)[best.indices]]
    assert widths == pytest.approx([value.item() for value in expected])
    assert [text.get_text() for text in ax.texts] == ["×"] * (view.SHOWN - 3)


def test_bold_tokens_were_said(step):
    tokenizer, text, logits = step
    ax = view.draw_step(tokenizer, text, logits, {"nothing": logits}, "title").axes[0]
    bold = {one.get_text() for one in ax.get_yticklabels() if one.get_fontweight() == "bold"}
    said = {view.show_token(tokenizer.decode([token_id])) for token_id in text.ids}
    assert bold and bold <= said


def test_the_words_count_what_is_left_and_name_the_likeliest(step):
    tokenizer, text, logits = step
    after = view.bend(logits, text, [TopK(3)])
    said = view.describe_step(tokenizer, text, logits, after)
    assert "3 of 2,048 tokens may follow" in said and "·The" in said
    assert "all 2,048 tokens" in view.describe_step(tokenizer, text, logits, logits)
    forbidden = logits.index_fill(0, logits.argmax(), -torch.inf)
    assert "the likeliest is now ·For" in view.describe_step(tokenizer, text, logits, forbidden)


def test_a_text_grows_by_five_tokens_in_the_same_way_and_ends_at_a_stop(atlas_base):
    model, tokenizer = atlas_base
    text = view.Text.begin("The raccoon:", tokenizer)
    longer = view.grow(model, text, [], draw=True)
    assert len(longer.ids) == len(text.ids) + view.STEP and longer.prompt == text.prompt
    assert longer == view.grow(model, text, [], draw=True) != view.grow(model, text, [], draw=False)
    ended = view.grow(model, longer, [], draw=False, stops=[longer.ids[-1]])
    assert ended.ids == longer.ids


def test_a_penalty_of_the_view_looks_back(atlas_base):
    model, tokenizer = atlas_base
    text = view.Text.begin("Venus", tokenizer)
    for _ in range(6):
        text = view.grow(model, text, [NoRepeatNgram(3)], draw=False)
    grams = list(zip(text.ids, text.ids[1:], text.ids[2:], strict=False))
    assert len(set(grams)) == len(grams)
    logits = view.read_logits(model, text)
    bent = view.bend(logits, text, [RepetitionPenalty(1.3, prompt=False)])
    changed = {int(i) for i in (bent != logits).nonzero()}
    assert changed == set(text.ids[text.prompt :])


def test_the_buttons_move_picture_words_and_text(atlas_base):
    model, tokenizer = atlas_base
    shown = view.explore_decoding(model, tokenizer, [PROMPT, "Venus"])
    beginnings, (temperatures, filters), _, (more, again) = (
        part.children if hasattr(part, "children") else part for part in shown.children[:4]
    )
    picture, words = shown.children[4:]
    before = picture.value
    filters.value = "top-k 5"
    assert "5 of 2,048 tokens may follow" in words.value and picture.value != before
    temperatures.value = 2.0
    tokens = len(view.Text.begin(PROMPT, tokenizer).ids)
    more.click()
    assert f"After {tokens + view.STEP} tokens" in words.value
    again.click()
    assert f"After {tokens} tokens" in words.value
    beginnings.value = "Venus"
    assert "Venus" in words.value and PROMPT not in words.value


def test_the_plane_has_a_point_a_setting_and_a_star_for_the_documents():
    results = read_results("14b_settings")
    figure = view.draw_plane(results, ["greedy", "T 1"], runs.REFERENCE, use="open")
    texts = [one.get_text() for one in figure.axes[0].texts]
    assert sorted(texts) == sorted(["greedy", "T 1", runs.REFERENCE])
    rep = results.measured("rep-4", use="open", setting="greedy")
    point = figure.axes[0].collections[0].get_offsets()[0]
    assert point[0] == pytest.approx(sum(rep) / len(rep))


def test_a_line_is_the_mean_of_its_dots():
    results = read_results("14b_settings")
    ax = view.draw_stops({"atlas": results}, "stops", "label", "title").axes[0]
    assert [line.get_label() for line in ax.lines] == list(runs.COUNTED) == list(view.COUNTED)
    for counted, line in zip(runs.COUNTED, ax.lines, strict=True):
        found = results.measured("stops", use="stops", penalty=1.3, counted=counted)
        assert line.get_xdata().tolist() == [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]
        assert line.get_ydata()[3] == pytest.approx(sum(found) / len(found))


def test_the_schematic_names_every_station():
    texts = " ".join(text.get_text() for text in view.draw_way().axes[0].texts)
    assert all(name in texts for name in ("logits", "penalties", "filter", "likeliest"))

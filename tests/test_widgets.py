"""The frame of the views: a picture and its words, one answer at a time, figures of its own."""

import base64
import re
import threading
import time

import ipywidgets
import matplotlib
import matplotlib.pyplot as plt
import pytest

matplotlib.use("Agg")
from sft_lab.course.views import widgets
from sft_lab.course.views.widgets import (
    Answer,
    frame,
    one_at_a_time,
    redraw_on,
    show_widget,
    to_png,
)
from sft_lab.plots import new_figure


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


def draw_bar(height: float):
    figure = new_figure((2.0, 1.5))
    figure.subplots().bar([0], [height])
    return figure


@pytest.fixture
def slider():
    return ipywidgets.IntSlider(value=3, min=1, max=9)


def test_a_frame_shows_picture_and_words_of_its_controls_and_every_move_redraws(slider):
    def answer() -> Answer:
        return Answer(f"{slider.value} high", draw_bar(slider.value))

    view, redraw = frame([slider], answer)
    control, picture, words = view.children
    assert control is slider and picture.value == words.value == ""  # nothing before redraw_on
    redraw_on(redraw, slider)
    for height in (3, 7):
        slider.value = height
        assert f"{height} high" in words.value
        alt, source = re.match(
            r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)"', picture.value
        ).groups()
        assert alt == f"{height} high"
        assert base64.b64decode(source) == to_png(draw_bar(height))


def test_an_answer_without_a_figure_takes_the_picture_away(slider):
    def answer() -> Answer:
        return Answer("said", draw_bar(1.0) if slider.value < 5 else None)

    view, redraw = frame([slider], answer)
    redraw_on(redraw, slider)
    _, picture, words = view.children
    assert picture.value != ""
    slider.value = 6
    assert picture.value == "" and "said" in words.value


def test_what_is_said_stays_text_and_only_what_stands_below_is_html(slider):
    shown = Answer('<b>5 > 4</b> "', draw_bar(1.0), details="<i>more", below="<table></table>")
    view, redraw = frame([slider], lambda: shown)
    redraw()
    _, picture, words = view.children
    assert "<b>" not in words.value + picture.value and "<i>" not in picture.value
    assert "&lt;b&gt;5 &gt; 4" in words.value and "more" not in words.value
    assert "&lt;i&gt;more" in picture.value and words.value.endswith("<table></table>")


def test_controls_of_an_inner_list_stand_side_by_side(slider):
    other = ipywidgets.Checkbox()
    view, _ = frame([slider, [other, ipywidgets.Button()]], lambda: Answer("", None))
    first, second, _, _ = view.children
    assert first is slider
    assert isinstance(second, ipywidgets.HBox) and second.children[0] is other


def test_a_widget_is_shown_together_with_its_picture(monkeypatch):
    shown = []
    monkeypatch.setattr(widgets, "display", lambda data, raw: shown.append(data))
    show_widget(ipywidgets.VBox(), draw_bar(1.0))
    assert {"application/vnd.jupyter.widget-view+json", "image/png"} <= shown[0].keys()
    assert matplotlib.pyplot.get_fignums() == []


def test_a_figure_of_a_view_is_unknown_to_pyplot_so_that_no_other_answer_shows_half_of_it(slider):
    known = []

    def answer() -> Answer:
        figure = draw_bar(slider.value)
        known.append(plt.get_fignums())
        return Answer("", figure)

    _, redraw = frame([slider], answer)
    redraw_on(redraw, slider)
    slider.value = 8
    assert known == [[], []]


def test_a_figure_drawn_in_a_cell_is_known_to_pyplot_also_while_a_view_answers_elsewhere():
    before = plt.get_fignums()
    one_at_a_time(new_figure)()
    assert plt.get_fignums() == before
    figure = new_figure()
    assert figure.number in plt.get_fignums()
    plt.close(figure)


def test_answers_wait_for_each_other():
    running, most = [], []

    @one_at_a_time
    def answer() -> None:
        running.append(1)
        most.append(len(running))
        time.sleep(0.01)
        running.pop()

    threads = [threading.Thread(target=answer) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5

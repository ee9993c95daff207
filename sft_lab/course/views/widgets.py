"""The frame of every view: controls, and below them one picture and the same in words.

A view is a thin shell around plain functions: `describe_x` says in words what `draw_x` draws, and
`explore_x` puts controls above both. Tests look at the plain functions.

Controls are sliders, buttons, switches and text boxes, which the keyboard reaches: Tab goes to
them, Space presses, arrows slide. There are no drop-down menus, for on those JupyterLab takes
arrows and letters as its own commands.
"""

import base64
import functools
import html
import io
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import ipywidgets
import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.figure import Figure

from sft_lab.plots import answering

_turn = threading.RLock()


class Answer(NamedTuple):
    """What a view shows for one setting of its controls."""

    sentence: str  # what the figure shows, in words
    figure: Figure | None  # None where there is nothing to draw; the words say why
    details: str = ""  # spoken after the sentence to those who cannot see the picture
    below: str = ""  # HTML under the words


def frame(
    rows: Sequence[ipywidgets.Widget | Sequence[ipywidgets.Widget]], answer: Callable[[], Answer]
) -> tuple[ipywidgets.VBox, Callable[..., None]]:
    """Controls above a picture and its words; returns that box and a function that redraws it.

    rows: the controls from top to bottom; those of an inner list stand side by side. answer: reads
    the controls and says what to show. Nothing is drawn before the first redraw: `redraw_on` makes
    it, and one at every move of a control.
    """
    picture, words = ipywidgets.HTML(), ipywidgets.HTML()

    @one_at_a_time
    def redraw(_: object = None) -> None:
        shown = answer()
        picture.value = _picture(shown)
        words.value = paragraph(shown.sentence) + shown.below

    lines = [row if isinstance(row, ipywidgets.Widget) else side_by_side(list(row)) for row in rows]
    return ipywidgets.VBox([*lines, picture, words]), redraw


def redraw_on(redraw: Callable[..., None], *controls: ipywidgets.Widget) -> None:
    """Redraw at every move of these controls, and once now."""
    for control in controls:
        control.observe(redraw, names="value")
    redraw()


def one_at_a_time(respond: Callable[..., None]) -> Callable[..., None]:
    """A view's response to its controls: never beside another one, and with figures of its own.

    JupyterLab answers every control in a thread of its own. A response reads the controls when its
    turn has come, so the last one shows what they say then. Its figures are unknown to pyplot
    (`sft_lab.plots.new_figure` says why).
    """

    @functools.wraps(respond)
    def waiting(*arguments: object) -> None:
        with _turn:
            before, answering.now = getattr(answering, "now", False), True
            try:
                respond(*arguments)
            finally:
                answering.now = before

    return waiting


def choose(
    description: str, options: Sequence[tuple[str, object]], *, description_width: str = "initial"
) -> ipywidgets.ToggleButtons:
    """A row of buttons of which one is down; options are pairs of name and value, the first is
    chosen."""
    style = {"description_width": description_width, "button_width": "auto"}
    # by default ipywidgets puts the description above the buttons; this puts it beside them
    beside = ipywidgets.Layout(display="flex", width="auto", margin="2px 2em 2px 2px")
    return ipywidgets.ToggleButtons(
        options=options, description=description, style=style, layout=beside
    )


def side_by_side(controls: Sequence[ipywidgets.Widget]) -> ipywidgets.HBox:
    """Controls in one row, which goes on below where the page is too narrow."""
    return ipywidgets.HBox(controls, layout={"flex_flow": "row wrap"})


def paragraph(sentence: str) -> str:
    """The sentence as HTML, at the line spacing of the chapter's own text."""
    return f'<p style="line-height: 1.5">{html.escape(sentence)}</p>'


def show_widget(widget: ipywidgets.Widget, figure: Figure) -> None:
    """Show the widget where a kernel runs, and `figure` where none does (GitHub, PDF, a notebook
    opened cold)."""
    _fill_tooltips(widget)
    still = base64.b64encode(to_png(figure)).decode()
    display({**widget._repr_mimebundle_(), "image/png": still}, raw=True)


def to_png(figure: Figure) -> bytes:
    """The figure as PNG; it is closed, so that a notebook does not show it twice."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    plt.close(figure)
    return file.getvalue()


def _picture(shown: Answer) -> str:
    """The figure as an HTML image that says what it shows; nothing where there is none."""
    if shown.figure is None:
        return ""
    spoken = html.escape(f"{shown.sentence} {shown.details}".rstrip())
    source = base64.b64encode(to_png(shown.figure)).decode()
    return f'<img alt="{spoken}" src="data:image/png;base64,{source}" style="max-width: 100%">'


def _fill_tooltips(widget: ipywidgets.Widget) -> None:
    """Under the mouse a control shows its name; without a tooltip of its own it would show the word
    "null"."""
    if getattr(widget, "tooltip", "") is None:
        widget.tooltip = getattr(widget, "description", "")
    for child in getattr(widget, "children", ()):
        _fill_tooltips(child)

"""The files between the commands of LLaMA-Factory, drawn (chapter 10)."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from sft_lab.plots import INK, MUTED, ORANGE, PROMPT, new_figure, title_figure

# file: (left, middle height, width, its lines)
FILES = {
    "base": (0.0, 3.0, 2.3, ("base model", "a folder")),
    "data": (0.0, 1.5, 2.3, ("rows.json", "dataset_info.json")),
    "yaml": (0.0, 0.0, 2.3, ("sft.yaml", "settings")),
    "adapter": (4.6, 1.5, 2.6, ("saves/…: adapter", "trainer_log, events")),
    "merged": (9.4, 1.5, 2.2, ("merged model", "a folder")),
    "text": (9.4, 3.0, 2.2, ("an answer", "text")),
}
# command: the files it reads, the one it writes
COMMANDS = {
    "train": (("base", "data", "yaml"), "adapter"),
    "export": (("adapter",), "merged"),
    "chat": (("adapter",), "text"),
}


def draw_workflow(command: str | None = None) -> Figure:
    """Files as boxes and commands as arrows; what `command` reads and writes is lit.

    command: "train", "export" or "chat"; None lights nothing. ValueError for another.
    """
    if command not in (None, *COMMANDS):
        raise ValueError(f"command is {command!r}; choose one of {', '.join(COMMANDS)}")
    reads, writes = COMMANDS.get(command, ((), ""))
    figure = new_figure((10.5, 3.7))
    ax = figure.subplots()
    for name, (left, middle, width, lines) in FILES.items():
        lit = name in reads or name == writes
        box = FancyBboxPatch(
            (left, middle - 0.42),
            width,
            0.84,
            boxstyle="round,pad=0.02,rounding_size=0.12",
            facecolor=ORANGE if lit else PROMPT,
            edgecolor="none",
        )
        ax.add_patch(box)
        ax.text(left + width / 2, middle + 0.14, lines[0], ha="center", va="center", fontsize=12)
        ax.text(left + width / 2, middle - 0.2, lines[1], ha="center", va="center", fontsize=10)
    for name, (sources, target) in COMMANDS.items():
        for source in sources:
            _draw_arrow(ax, source, target, INK if name == command else MUTED)
    for x, y, name in ((3.45, 2.75, "train"), (8.3, 1.75, "export"), (7.9, 2.75, "chat")):
        weight = "bold" if name == command else "normal"
        ax.text(x, y, name, ha="center", fontsize=12, family="monospace", fontweight=weight)
    ax.set(xlim=(-0.2, 11.8), ylim=(-0.6, 3.6))
    ax.axis("off")
    title_figure(figure, "Each command reads files and writes files")
    return figure


def _draw_arrow(ax: Axes, source: str, target: str, colour: str) -> None:
    left, middle, width, _ = FILES[source]
    end_left, end_middle, *_ = FILES[target]
    ax.annotate(
        "",
        (end_left - 0.05, end_middle + 0.08 * (middle - end_middle)),
        (left + width + 0.05, middle),
        arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 2},
    )

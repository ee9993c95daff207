"""Chapter 19b: which engine reads which file of a model."""

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from sft_lab.plots import GREEN, GRID, INK, MUTED, ORANGE, new_figure

ENGINES = ("transformers serve", "vLLM", "llama.cpp", "Ollama")
# what each engine takes from a file; a star where it may be the stop token
FILES = {
    "model.safetensors": ("weights", "weights", "", ""),
    "config.json": ("sizes; ends, if nothing else *", "sizes", "", ""),
    "generation_config.json": ("ends, sampling *", "ends, sampling *", "", ""),
    "tokenizer.json": ("text to ids", "text to ids", "", ""),
    "tokenizer_config.json": ("", "eos token *", "", ""),
    "chat_template.jinja": ("prompt", "prompt", "", ""),
    "model.gguf": ("", "", "all, one end *", "weights, ids, end *"),
    "Modelfile": ("", "", "", "prompt, stop texts *"),
}


def draw_files() -> Axes:
    """The files as rows, the engines as columns; orange where a cell can name the stop token."""
    figure = new_figure((11.0, 4.8))
    ax = figure.subplots()
    for row, (file, uses) in enumerate(FILES.items()):
        ax.text(-0.05, row, file, ha="right", va="center", family="monospace", fontsize=11.5)
        for column, use in enumerate(uses):
            ends = use.endswith("*")
            colour = ORANGE if ends else GREEN if use else "white"
            box = Rectangle((column + 0.02, row - 0.44), 0.96, 0.88, facecolor=colour)
            box.set(alpha=0.45, edgecolor=GRID)
            ax.add_patch(box)
            ax.text(column + 0.5, row, use.rstrip("* "), ha="center", va="center", fontsize=10.5)
    for column, engine in enumerate(ENGINES):
        ax.text(column + 0.5, -0.75, engine, ha="center", weight="bold", color=INK)
    ax.text(0, len(FILES) - 0.25, "orange: can name the stop token", color=MUTED, fontsize=11)
    ax.set(xlim=(-1.15, len(ENGINES)), ylim=(len(FILES), -1.1))
    ax.set_title("Five files can name the stop token; no engine reads all five")
    ax.axis("off")
    return ax

"""Station "ground": the frame that all HTML pages share, and a page in it.

`page.html` is the frame: what forbids scripts and network, colours, cards, tiles. A page's own
template holds its title and its own style, up to the end of that, and what it shows.
"""

import string
from importlib import resources

FRAME = "page.html"
END_OF_HEAD = "</style>\n"


def fill_page(name: str, values: dict[str, str]) -> str:
    """The whole page of a template of this package, "report.html", with its $names filled in.

    values: HTML, escaped by who gives it. Raises KeyError for a $name without a value.
    """
    own_head, end, own_main = _read(name).partition(END_OF_HEAD)
    head, main = (string.Template(part).substitute(values) for part in (own_head + end, own_main))
    return string.Template(_read(FRAME)).substitute(head=head.strip(), main=main.strip())


def _read(name: str) -> str:
    return resources.files("sft_lab").joinpath(name).read_text(encoding="utf-8")

"""Sphinx settings of the page edition. `make book` copies them beside the prepared notebooks."""

project = "SFT Lab"
author = "the authors of SFT Lab"
copyright = "the authors of SFT Lab, Apache-2.0"  # noqa: A001, the name that Sphinx reads
html_title = "SFT Lab"

extensions = ["myst_nb", "sphinx-mathjax-offline"]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "html_image"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the pages show what the notebooks hold: `make test` runs them
nb_ipywidgets_js = {}  # nothing from a server: a view is shown as its picture
nb_merge_streams = True
suppress_warnings = ["mystnb.unknown_mime_type", "myst.header"]

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_search_summary = False  # it is fetched, which a browser refuses to a page from a file
html_theme_options = {
    "home_page_in_toc": False,
    "show_navbar_depth": 1,
    "use_download_button": False,
    "use_fullscreen_button": True,
    "show_toc_level": 2,
    "navbar_start": [],  # the side bar has a search field already
    "navbar_end": [],
    "navbar_persistent": [],
    "pygments_light_style": "default",
    "pygments_dark_style": "github-dark",
}

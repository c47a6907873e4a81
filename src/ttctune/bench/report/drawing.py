"""From a figure of matplotlib to SVG that stands inside a page: its colours are the page's, light or dark.

Figures are drawn in stand-in colours, one for each role. In the SVG these become CSS variables of the page, text stays
text, and identifiers get a prefix of their own, so that many drawings can stand in one page.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from cycler import cycler
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

#: Stand-in colour -> CSS variable.
TEXT, RULE, ACCENT = "#010101", "#010102", "#010103"
_ROLES = {TEXT: "--text", RULE: "--rule", ACCENT: "--accent"}
#: Colours of methods, then dashes and markers tell further ones apart.
SERIES = 8
_DASHES = ("solid", (0, (4, 2)), (0, (1, 1.5)))
_MARKERS = "osD^vP*X"

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ttctune",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": RULE,
    "axes.prop_cycle": cycler(color=[ACCENT]),
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}


@contextmanager
def page_style() -> Iterator[None]:
    """Draw in the stand-in colours."""
    with rc_context(_STYLE):
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure to draw into, sizes in inches; use it inside of `page_style`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure


def series(number: int) -> dict[str, Any]:
    """Colour, dashes and marker of the method of this number."""
    return {
        "color": f"#0002{number % SERIES:02x}",
        "linestyle": _DASHES[number // SERIES % len(_DASHES)],
        "marker": _MARKERS[(number + number // SERIES) % len(_MARKERS)],
    }


def to_svg(figure: Figure, name: str, says: str) -> str:
    """The figure as an SVG element.

    Args:
        figure: Drawn inside of `page_style`.
        name: Unlike that of every other drawing of the page; letters, digits and dashes.
        says: What one sees in it, for those who do not.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    head, _, body = text[text.index("<svg") :].partition(">")
    box = re.search(r'viewBox="([^"]+)"', head)
    body = re.sub(r'(\bid="|"url\(#|url\(#|href="#)', lambda match: f"{match[1]}{name}-", body)
    body = re.sub(r"<[^>]*>", lambda match: re.sub(r"(\.\d\d)\d+", r"\1", match[0]), body)  # half the size
    body = re.sub(r"#0002([0-9a-f]{2})\b", lambda match: f"var(--series-{int(match[1], 16)})", body)
    for colour, variable in _ROLES.items():
        body = body.replace(colour, f"var({variable})")
    size = f'viewBox="{box[1] if box else "0 0 1 1"}" style="max-width: {figure.get_figwidth() * 96:.0f}px"'
    return f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" role="img" aria-label="{escape(says)}" {size}>{body}'

"""The claims of the paper on the report page: a table and a figure for each data set."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vgg_keras.report.figures import figure_uri
from vgg_keras.report.results import Result
from vgg_keras.reproduction import verdicts
from vgg_keras.reproduction.verdicts import (
    CONTRADICTED,
    HOLDS,
    MARGIN,
    UNDECIDED,
    TestedClaim,
)
from vgg_keras.text import figure_text


@dataclass(frozen=True)
class _Mark:
    """How a verdict is shown: in a figure, in text, and in the colour of both."""

    marker: str
    sign: str
    colour: str


# Blue and orange as of Okabe and Ito, darker for contrast on white; shape and word say the verdict
# too.
MARKS = {
    HOLDS: _Mark("o", "●", "#0065a3"),
    CONTRADICTED: _Mark("X", "✖", "#b84a00"),
    UNDECIDED: _Mark("d", "◇", "#5f6870"),
}
_PAPER: dict[str, Any] = {
    "marker": "|",
    "ms": 15,
    "mew": 2.2,
    "color": "#111111",
    "ls": "none",
    "zorder": 4,
}
_MARGIN: dict[str, Any] = {"marker": "|", "ms": 15, "mew": 1, "color": "#7a828a", "ls": "none"}


def claims_section(results: Sequence[Result]) -> dict[str, Any] | None:
    """The contents of the claims section; None if no claim has results.

    Args:
        results: from `read_results`.

    Returns:
        `settings`: for each data set, crop size and width the claims with results (`measured_on`,
        `rows`, `wide` and `narrow`, which are figures as data URIs); `missing`: the other claims;
        `counts`: the number of claims with each verdict, in words.
    """
    tested = verdicts.test_claims(results)
    answered = [one for one in tested if one.difference is not None]
    if not answered:
        return None
    settings = dict.fromkeys(one.measured_on for one in answered)
    return {
        "settings": [
            _setting(name, [one for one in answered if one.measured_on == name])
            for name in settings
        ],
        "missing": [one for one in tested if one.difference is None],
        "margin": MARGIN,
        "counts": [
            f"{verdict}: {sum(one.verdict == verdict for one in answered)}" for verdict in MARKS
        ],
    }


def _setting(name: str, tested: Sequence[TestedClaim]) -> dict[str, Any]:
    return {
        "measured_on": name,
        "rows": [{"tested": one, "sign": MARKS[one.verdict].sign} for one in tested],
        "has_notes": any(one.notes for one in tested),
        "wide": figure_uri(claims_figure(tested)),
        "narrow": figure_uri(claims_figure(tested, narrow=True)),
    }


def claims_figure(tested: Sequence[TestedClaim], *, narrow: bool = False) -> Figure:
    """Draws the gain of each claim with its 95 % interval, the paper's gain and the verdict.

    The colour, the shape and the word all say the verdict. A thin line marks the margin of claims
    that something does not help.

    Args:
        tested: claims from `test_claims`; those without results are ignored.
        narrow: whether to draw the claims above the intervals, for narrow screens.

    Example:
        save_figure(claims_figure(test_claims(read_results("results"))), "claims.png")
    """
    shown = [one for one in tested if one.difference is not None]
    labels = [textwrap.wrap(_label(one), 54 if narrow else 64) for one in shown]
    # Inches: lines of text, and the interval below them or the space around them.
    heights = [0.19 * len(lines) + (0.42 if narrow else 0.14) for lines in labels]
    ends = list(itertools.accumulate(heights))
    size = (4.6 if narrow else 10.8, sum(heights) + (1.7 if narrow else 1.2))
    figure = Figure(figsize=size, layout="constrained")
    panel = figure.subplots()
    panel.set_ylim(ends[-1], -0.06)  # the first text is not cut
    panel.set_yticks([])
    for one, lines, height, end in zip(shown, labels, heights, ends, strict=True):
        y = end - 0.29 if narrow else end - height / 2
        top, bottom = (y - 0.12, y + 0.12) if narrow else (end - height, end)
        panel.vlines(0, top, bottom, color="#7a828a", lw=1)
        _draw_claim(panel, one, y)
        text = "\n".join(map(figure_text, lines))
        panel.text(
            0 if narrow else -0.02,
            end - height if narrow else y,
            text,
            transform=panel.get_yaxis_transform(),
            fontsize=9.5,
            va="top" if narrow else "center",
            ha="left" if narrow else "right",
        )
    panel.set_xlabel("← worse      gain in points      better →")
    panel.grid(axis="x", alpha=0.3)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.margins(x=0.03)
    handles, texts = _legend(shown)
    figure.legend(
        handles,
        texts,
        loc="outside lower center",
        ncols=2 if narrow else 6,
        fontsize=9,
        frameon=False,
    )
    return figure


def _label(one: TestedClaim) -> str:
    return f"{one.claim.statement}\N{NO-BREAK SPACE}(§{one.claim.section})"


def _draw_claim(panel: Axes, one: TestedClaim, y: float) -> None:
    """Draws an interval with its mean, the paper's gain and the verdict in a row of the panel."""
    assert one.difference is not None
    gain, mark = one.difference, MARKS[one.verdict]
    panel.plot([gain.low, gain.high], [y, y], color=mark.colour, lw=2.4, gid=_gid(one))
    if one.papers_gain is not None:
        panel.plot(one.papers_gain, y, **_PAPER)
    if not one.claim.helps:
        panel.plot(MARGIN, y, **_MARGIN)
    panel.plot(gain.points, y, **_style(one.verdict))
    panel.text(
        1.02,
        y,
        one.verdict,
        transform=panel.get_yaxis_transform(),
        va="center",
        fontsize=9.5,
        color=mark.colour,
        fontweight="bold",
    )


def _gid(one: TestedClaim) -> str:
    return f"interval-{one.claim.id}"


def _style(verdict: str) -> dict[str, Any]:
    mark = MARKS[verdict]
    face = "white" if verdict == UNDECIDED else mark.colour
    return {"marker": mark.marker, "ms": 8, "color": mark.colour, "mfc": face, "ls": "none"}


def _legend(shown: Sequence[TestedClaim]) -> tuple[list[Line2D], list[str]]:
    """Handles and texts of the legend, for what the figure has."""
    present = {one.verdict for one in shown}
    found = [
        (Line2D([], [], **_style(verdict)), verdict) for verdict in MARKS if verdict in present
    ]
    found.append((Line2D([], [], color="#5f6870", lw=2.4), "95 % interval"))
    if any(one.papers_gain is not None for one in shown):
        found.append((Line2D([], [], **_PAPER), "the paper's gain"))
    if not all(one.claim.helps for one in shown):
        found.append((Line2D([], [], **_MARGIN), f"margin, {MARGIN:g} points"))
    return [handle for handle, _ in found], [text for _, text in found]

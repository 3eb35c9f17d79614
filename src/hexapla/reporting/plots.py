"""The report's pictures; the only code that knows matplotlib. The same input gives the same bytes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

# Okabe and Ito's colours, which stay apart for colour-blind readers; shapes say the same again.
_COLOURS = ("#D55E00", "#56789A", "#009E73", "#CC79A7", "#0072B2", "#E69F00")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": "#8a8f98",
    "axes.linewidth": 0.8,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e3e6ea",
    "xtick.color": "#3c4149",
    "ytick.color": "#3c4149",
    "text.color": "#1d2127",
    "axes.labelcolor": "#1d2127",
}


def language_pairs(path: Path, languages: Sequence[str], models: Mapping[str, np.ndarray]) -> None:
    """A heatmap of mAP for each model, on one scale.

    Args:
        path: the PNG to write.
        languages: the labels of both axes.
        models: title -> float [question language, passage language]; NaN where there is no figure.
    """
    size = len(languages)
    across = min(2, len(models))
    down = -(-len(models) // across)
    side = max(3.2, 0.42 * size)
    with mpl.rc_context({**_STYLE, "axes.spines.top": True, "axes.spines.right": True}):
        figure = Figure(figsize=(across * side + 1.2, down * (side + 0.5)), layout="constrained")
        axes = figure.subplots(down, across, squeeze=False)
        values = np.concatenate([matrix.ravel() for matrix in models.values()])
        low = float(np.floor(np.nanmin(values, initial=0.9) * 10) / 10)
        for axis, (title, matrix) in zip(axes.flat, models.items(), strict=False):
            image = _heatmap(axis, title, matrix, low, 1, languages)
        for axis in axes.flat[len(models) :]:
            axis.set_visible(False)
        for axis in axes[:, 0]:
            axis.set_ylabel("language of the question")
        for axis in axes[-1]:
            axis.set_xlabel("language of the passages")
        figure.colorbar(image, ax=axes, label="mAP", shrink=0.6, aspect=30)
        _save(figure, path)


def matrices(path: Path, languages: Sequence[str], panels: Mapping[str, np.ndarray]) -> None:
    """A heatmap for each matrix, each on its own scale from 0 to its greatest.

    Args:
        path: the PNG to write.
        languages: the labels of both axes.
        panels: title -> float [question language, passage language]; NaN where there is no figure.
    """
    size = len(languages)
    side = max(3.2, 0.42 * size)
    with mpl.rc_context({**_STYLE, "axes.spines.top": True, "axes.spines.right": True}):
        figure = Figure(figsize=(len(panels) * (side + 0.6), side + 0.5), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)
        for axis, (title, matrix) in zip(axes.flat, panels.items(), strict=True):
            high = float(np.nanmax(matrix, initial=0)) or 1.0
            image = _heatmap(axis, title, matrix, 0, high, languages)
            axis.set_xlabel("language of the passages")
            figure.colorbar(image, ax=axis, shrink=0.8, aspect=30)
        axes[0, 0].set_ylabel("language of the question")
        _save(figure, path)


def _heatmap(
    axis: Any, title: str, matrix: np.ndarray, low: float, high: float, languages: Sequence[str]
) -> Any:
    """Draw languages at both axes and each cell's value in a contrasting color; return the image."""
    image = axis.imshow(matrix, vmin=low, vmax=high, cmap="viridis")
    axis.set_title(title)
    axis.set_xticks(range(len(languages)), languages)
    axis.set_yticks(range(len(languages)), languages)
    axis.tick_params(length=0)
    for (row, column), value in np.ndenumerate(matrix):
        if not np.isnan(value):
            bright = (value - low) / (high - low + 1e-9) > 0.55
            text = f"{value:.2f}".removeprefix("0")
            colour = "#1d2127" if bright else "white"
            axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=6.5)
    return image


def rank_distances(
    path: Path, languages: Sequence[str], models: Mapping[str, Sequence[float | None]], ideal: float
) -> None:
    """Rank distance by the question's language, a mark for each model and a line at the ideal.

    Args:
        path: the PNG to write.
        languages: a row each.
        models: title -> a value for each language; None where there is none.
        ideal: the least that so many languages allow.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, 1.4 + 0.3 * len(languages)), layout="constrained")
        axis = figure.subplots()
        rows = np.arange(len(languages))
        table = np.array([[np.nan if v is None else v for v in values] for values in models.values()])
        held = ~np.isnan(table).all(axis=0)
        axis.hlines(
            rows[held],
            np.nanmin(table[:, held], axis=0),
            np.nanmax(table[:, held], axis=0),
            color="#c9ced6",
            zorder=1,
        )
        for i, (title, values) in enumerate(zip(models, table, strict=True)):
            axis.scatter(values, rows, label=title, zorder=9 - i, **_mark(i))
        axis.axvline(ideal, color="#1d2127", linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        axis.set_yticks(rows, languages)
        axis.invert_yaxis()
        axis.set_xlim(left=0)
        axis.set_xlabel(f"rank distance; the dashed line is the least possible, {ideal:g}")
        axis.set_ylabel("language of the question")
        axis.grid(axis="x")
        axis.set_axisbelow(True)
        figure.legend(loc="outside upper center", ncols=len(models), frameon=False)
        _save(figure, path)


def spreads(
    path: Path, languages: Sequence[str], panels: Mapping[str, Sequence[Sequence[float] | None]]
) -> None:
    """Distributions by language, a panel a measure: whiskers 5 to 95 %, box the middle half, mark the median.

    Args:
        path: the PNG to write.
        languages: a row each.
        panels: title -> for each language its quantiles 5, 25, 50, 75, 95 %; None where there are none.
    """
    with mpl.rc_context(_STYLE):
        size = (1 + 2.4 * len(panels), 1.1 + 0.26 * len(languages))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axis, (title, boxes) in zip(axes, panels.items(), strict=True):
            for row, box in enumerate(boxes):
                if box is not None:
                    _box(axis, row, box)
            axis.set_title(title)
            axis.grid(axis="x")
            axis.set_axisbelow(True)
            axis.tick_params(axis="y", length=0)
            axis.locator_params(axis="x", nbins=4)
            # At least a tenth to either side, lest distributions that hardly spread look as if they did.
            low, high = axis.get_xlim()
            spare = max(0.0, 0.2 - (high - low)) / 2
            axis.set_xlim(low - spare, high + spare)
        axes[0].set_yticks(range(len(languages)), languages)
        axes[0].set_ylim(len(languages) - 0.5, -0.5)
        _save(figure, path)


def _box(axis: Any, row: int, box: Sequence[float]) -> None:
    low, lower, median, upper, high = box
    axis.hlines(row, low, high, color="#8fa3b8", linewidth=1.4, zorder=2)
    axis.hlines(row, lower, upper, color="#56789A", linewidth=6.5, zorder=3)
    axis.scatter(
        [median], [row], color="#D55E00", marker="D", s=20, linewidths=0.6, edgecolors="white", zorder=4
    )


def losses(path: Path, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> None:
    """Training loss by step; `curves` is title -> (steps, losses), an empty one takes only its colour."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, 3.4), layout="constrained")
        axis = figure.subplots()
        for i, (title, (steps, values)) in enumerate(curves.items()):
            if len(steps):
                axis.plot(steps, values, color=_COLOURS[i % len(_COLOURS)], label=title, linewidth=1.4)
        axis.set_ylim(bottom=0)
        axis.set_xlabel("step")
        axis.set_ylabel("InfoNCE loss of the batch")
        axis.grid(axis="y")
        axis.set_axisbelow(True)
        figure.legend(loc="outside upper center", ncols=len(curves), frameon=False)
        _save(figure, path)


def _mark(position: int) -> dict[str, Any]:
    return {
        "color": _COLOURS[position % len(_COLOURS)],
        "marker": _MARKERS[position % len(_MARKERS)],
        "s": 42,
        "linewidths": 0.6,
        "edgecolors": "white",
    }


def _save(figure: Figure, path: Path) -> None:
    # Without the version of matplotlib in the file, which would differ between machines.
    figure.savefig(path, format="png", dpi=120, metadata={"Software": None})

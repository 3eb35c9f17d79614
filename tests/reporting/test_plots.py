import numpy as np
from PIL import Image

from hexapla.reporting import plots


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def near(path, colour, by=12):
    """How many pixels have about this colour."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(pixels(path) - wanted).max(axis=2) <= by).sum())


def test_a_heatmap_shows_every_cell_and_leaves_gaps_empty(tmp_path):
    matrix = np.array([[1.0, 0.5], [np.nan, 1.0]])
    plots.language_pairs(tmp_path / "a.png", ["de", "zh"], {"one": matrix, "two": matrix, "three": matrix})
    full = np.array([[1.0, 0.5], [0.5, 1.0]])
    plots.language_pairs(tmp_path / "b.png", ["de", "zh"], {"one": full, "two": full, "three": full})
    yellow, violet = "#fde725", "#440154"
    assert near(tmp_path / "a.png", yellow) > 1000
    assert near(tmp_path / "a.png", violet) > 1000
    assert near(tmp_path / "b.png", violet) > 1.5 * near(tmp_path / "a.png", violet)


def test_a_language_alone_and_no_figure_at_all_are_drawn(tmp_path):
    plots.language_pairs(tmp_path / "a.png", ["de"], {"one": np.array([[np.nan]])})
    plots.rank_distances(tmp_path / "b.png", ["de", "en"], {"one": [None, 3.0]}, ideal=1)
    assert pixels(tmp_path / "a.png").min() < 100, "the label of the language"
    assert near(tmp_path / "b.png", "#D55E00") > 50, "the mark of the one figure"


def test_each_model_has_its_mark(tmp_path):
    plots.rank_distances(tmp_path / "a.png", ["de", "en"], {"one": [5, 6], "two": [50, 60]}, ideal=1)
    assert near(tmp_path / "a.png", "#D55E00") > 100
    assert near(tmp_path / "a.png", "#56789A") > 100


def test_a_model_that_was_not_trained_only_takes_its_colour(tmp_path):
    plots.losses(
        tmp_path / "a.png", {"candidate": ([0, 1], [2.0, 1.0]), "untuned": ([], []), "x": ([0, 1], [1, 1])}
    )
    assert near(tmp_path / "a.png", "#009E73") > 100
    assert near(tmp_path / "a.png", "#56789A") < 20


def test_the_same_input_gives_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        plots.losses(tmp_path / name, {"one": ([0, 1], [2.0, 1.0])})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_distribution_has_its_box_and_its_median_and_gaps_stay_empty(tmp_path):
    box = [0.2, 0.4, 0.5, 0.6, 0.9]
    for name, second in (("a", box), ("b", None)):
        plots.spreads(tmp_path / f"{name}.png", ["de", "zh"], {"one": [box, second], "two": [box, second]})
    for colour in ("#56789A", "#8fa3b8", "#D55E00"):
        both, one = (near(tmp_path / f"{name}.png", colour) for name in "ab")
        assert one > 40
        assert 1.7 * one < both < 2.3 * one


def test_distributions_that_hardly_spread_do_not_fill_their_panel(tmp_path):
    widths = []
    for name, far in (("narrow", 0.001), ("wide", 0.3)):
        box = [0.9 - far, 0.9 - far / 2, 0.9, 0.9 + far / 2, 0.9 + far]
        plots.spreads(tmp_path / f"{name}.png", ["de"], {"cosine": [box]})
        colours = np.abs(pixels(tmp_path / f"{name}.png") - [0x56, 0x78, 0x9A]).max(axis=2) <= 12
        columns = np.flatnonzero(colours.any(axis=0))
        widths.append(np.ptp(columns) if len(columns) else 0)
    assert widths[0] < widths[1] / 5

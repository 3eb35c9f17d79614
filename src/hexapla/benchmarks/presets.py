"""Public benchmarks by name: where they lie, at which commit, under which licence.

An address with a commit in it names the same bytes for ever, as far as one trusts the host; a checksum
needs no trust. XQuAD-R has both. MLQA-R's files and MIRACL's were never at hand here, so those are pinned
by commit alone: what a download has for checksums is printed and stands in `collect`'s summary, and
`sha256:` beside `preset:` in `params.yaml` pins it from then on.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Preset(NamedTuple):
    format: str
    """`lareqa` or `miracl`."""
    languages: tuple[str, ...]
    licence: str
    paper: str
    megabytes: int
    """Roughly, to download."""
    url: str = ""
    """Of one language's file, with `{lang}`; or empty."""
    hub: str = ""
    """A dataset of the hub, in MTEB's layout; or empty."""
    revision: str = ""
    sha256: Mapping[str, str] = {}
    """By language."""


_LAREQA = "https://raw.githubusercontent.com/google-research-datasets/lareqa"

_XQUAD_R = Preset(
    format="lareqa",
    languages=("ar", "de", "el", "en", "es", "hi", "ru", "th", "tr", "vi", "zh"),
    licence="CC BY-SA 4.0",
    paper="arXiv 2004.05484",
    megabytes=18,
    url=f"{_LAREQA}/5405d2a77e83d5ccb47623a3f9e5604c3f103193/xquad-r/{{lang}}.json",
    sha256={
        "ar": "c52922d3b8ac1ae03ed5ac38647ad59870dca3dda2beefe18ecdc30729acb69d",
        "de": "16fb0f4bf4916154b585a20c24c66074591c9718a1affe764ff4697572328949",
        "el": "163fd43ee785a30eb534ae2061e9eaa766a7ee4e8ffce5e4b422480c150f64b6",
        "en": "7b0954f39297c27a31fef610f0883337dd2907fa8699151dc922afdd0fa12ffe",
        "es": "f8e836b2d91009c4363e04315f7ede363eedbbb49c67dda60de6c4aa782f58de",
        "hi": "ea45ba8ae4513d1533b222bebdc02a90bc319c055d3aeea68584a053d2e92872",
        "ru": "7f4dff853538b9a5fcc28c070b8bb983a5c5d190ac747b8e005a1ada9cab18f1",
        "th": "c3a041864c3a9fb0b4dd91cfdf99cf36b411b3e704c58a303c97bc6dc786cfe4",
        "tr": "f3e8c13002bbce154a4578f535f7533cb70f3da08840e6b62735935baec7bd94",
        "vi": "e35926bf5cc6fc6ecbdfca49467aabeb454f08d152d7818143a906bd31dde995",
        "zh": "80c2cde7b9c2fb134c303cbb52f2ba396ead9eb0014aec43993543d2ba9e93ed",
    },
)

_MLQA_R = Preset(
    format="lareqa",
    languages=("ar", "de", "en", "es", "hi", "vi", "zh"),
    licence="CC BY-NC 4.0",
    paper="arXiv 2004.05484",
    megabytes=14,
    url=f"{_LAREQA}/354d67d1cd066854cdfbf5ad0e6105528976141d/mlqa-r/{{lang}}.json",
)

# Megabytes of Parquet a language: of the whole Wikipedia (by the dataset's card), and of the passages that
# BM25 and two dense retrievers ranked highest (Enevoldsen et al. 2025, arXiv 2502.13595; by their number).
# Those have at most 1,000 questions a language, and bn, sw and yo keep their whole corpora.
_MIRACL = {
    "ar": (548, 51), "bn": (111, 111), "de": (4155, 19), "en": (7975, 43), "es": (2570, 36), "fa": (474, 29),
    "fi": (439, 45), "fr": (3091, 16), "hi": (176, 22), "id": (271, 31), "ja": (1667, 44), "ko": (361, 10),
    "ru": (2768, 64), "sw": (17, 17), "te": (150, 30), "th": (202, 44), "yo": (5, 5), "zh": (1092, 18),
}  # fmt: skip


def _miracl(languages: tuple[str, ...]) -> Preset:
    return Preset(
        format="miracl",
        languages=languages,
        licence="CC BY-SA 4.0",
        paper="arXiv 2210.09984",
        megabytes=sum(_MIRACL[lang][0] for lang in languages),
        hub="mteb/MIRACLRetrieval",
        revision="9c09abc13478308c27598f350e31d8f06b9b5481",
    )


def _miracl_hard(languages: tuple[str, ...]) -> Preset:
    return _miracl(languages)._replace(
        megabytes=sum(_MIRACL[lang][1] for lang in languages),
        hub="mteb/MIRACLRetrievalHardNegatives",
        revision="332a9acb49f5e83d5397683f79d23e588f685916",
    )


PRESETS: dict[str, Preset] = {
    "xquad-r": _XQUAD_R,
    "mlqa-r": _MLQA_R,
    "miracl": _miracl(tuple(_MIRACL)),
    **{f"miracl-{lang}": _miracl((lang,)) for lang in _MIRACL},
    "miracl-hard": _miracl_hard(tuple(_MIRACL)),
    **{f"miracl-hard-{lang}": _miracl_hard((lang,)) for lang in _MIRACL},
}
"""All 18 languages of MIRACL together, or one alone: its corpora are apart, so its figures are too."""

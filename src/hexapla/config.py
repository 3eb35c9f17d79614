"""`params.yaml` as frozen dataclasses; what does not fit is refused by its key's name.

Every stage reads and checks the whole file, so that a typing error in any section is caught by
whichever stage runs first. Field comments live in `params.yaml`, beside the values that people
change.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hexapla import strict
from hexapla.benchmarks import origins
from hexapla.benchmarks.origins import Origin
from hexapla.config_data import Collect, Executor, Translate, Validate
from hexapla.strict import distinct, filled, within

SamplerName = Literal["hybrid", "monolingual", "crosslingual", "parallel", "untuned"]
BaselineName = SamplerName
TrainedName = Literal["hybrid", "monolingual", "crosslingual", "parallel"]
Precision = Literal["auto", "fp32", "bf16"]
Centring = Literal["none", "language", "trained"]


@dataclass(frozen=True)
class Prompts:
    """What is put before a text; used for encoders that bring no prompts of their own."""

    query: str = ""
    passage: str = ""


@dataclass(frozen=True)
class Hybrid:
    alpha: float = 0.5
    mixing: Literal["batch", "example"] = "batch"

    def __post_init__(self) -> None:
        within(self, "alpha", 0.0, 1.0)


@dataclass(frozen=True)
class Parallel:
    languages: int = 4

    def __post_init__(self) -> None:
        within(self, "languages", 2, None)


@dataclass(frozen=True)
class Train:
    steps: int = 100
    batch_size: int = 32
    question_tokens: int = 48
    passage_tokens: int = 128
    negatives: int = 0
    size_exponent: float = 1.0
    learning_rate: float = 3e-5
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: int = 10
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    temperature: float = 0.02
    two_sided: bool = False
    precision: Precision = "auto"
    forward_tokens: int | None = None
    kept_tokens: int = 8192
    gradient_checkpointing: bool = False
    compile: bool = False
    freeze_embeddings: bool = True
    freeze_layers: int = 0
    lora_rank: int = 0
    interpolate: float = 0.0
    holdout: int = 0
    validate_every: int = 50
    patience: int = 3
    stop_by: Literal["map", "loss"] = "map"
    checkpoint_every: int = 20
    centring_texts: int = 64
    languages: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("steps", "checkpoint_every", "validate_every", "patience", "centring_texts"):
            within(self, name, 1, None)
        within(self, "batch_size", 2, None)
        for name in ("question_tokens", "passage_tokens", "forward_tokens"):
            within(self, name, 4, None)
        for name in ("learning_rate", "temperature", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: must be above 0")
        for name in ("warmup_steps", "weight_decay", "freeze_layers", "kept_tokens", "lora_rank", "holdout"):
            within(self, name, 0, None)
        within(self, "negatives", 0, None)
        within(self, "size_exponent", 0.0, 1.0)
        within(self, "interpolate", 0.0, 1.0)
        for language, weight in self.languages.items():
            if not weight > 0:
                raise ValueError(f"languages.{language}: a weight must be above 0; leave the language out")


@dataclass(frozen=True)
class Benchmark:
    """What models are judged on, under `name`, and where it comes from: preset, path, url or hub."""

    name: str = ""
    preset: str = ""
    path: str = ""
    url: str = ""
    hub: str = ""
    revision: str = ""
    format: Literal["auto", "lareqa", "miracl"] = "auto"
    sha256: dict[str, str] = field(default_factory=dict)
    languages: tuple[str, ...] = ()
    candidate_text: Literal["sentence", "sentence_in_context"] = "sentence"

    def __post_init__(self) -> None:
        if not self.name and not self.preset:
            raise ValueError("name: missing")
        # The only value of a section that depends on another one.
        object.__setattr__(self, "name", self.name or self.preset)
        if not self.name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"name: '{self.name}' may hold letters, digits, - and _ only")
        distinct(self.languages, "languages: '{}' stands twice")
        if self.origin.format == "miracl" and self.candidate_text != "sentence":
            raise ValueError("candidate_text: passages in MIRACL format have no context; leave it out")

    @property
    def origin(self) -> Origin:
        """With the preset's fields filled in."""
        given = Origin(self.path, self.url, self.hub, self.revision, self.format, self.languages, self.sha256)
        return origins.checked(self.preset, given)


@dataclass(frozen=True)
class Replicas:
    """Further trainings of the same configurations, for the spread over seeds."""

    seeds: tuple[int, ...] = ()
    samplers: tuple[TrainedName, ...] = ()

    def __post_init__(self) -> None:
        distinct(list(map(str, self.seeds)), "seeds: {} stands twice")
        distinct(self.samplers, "samplers: '{}' stands twice")
        for i in range(len(self.seeds)):
            if self.seeds[i] < 0:
                raise ValueError(f"seeds[{i}]: must be at least 0")

    def names(self) -> list[str]:
        """Of the models that they make."""
        return [f"{sampler}-{seed}" for sampler in self.samplers for seed in self.seeds]


@dataclass(frozen=True)
class Evaluate:
    question_tokens: int = 96
    passage_tokens: int = 256
    precision: Precision = "fp32"
    centring: tuple[Centring, ...] = ("none", "language")

    def __post_init__(self) -> None:
        for name in ("question_tokens", "passage_tokens"):
            within(self, name, 4, None)
        distinct(self.centring, "centring: '{}' stands twice")
        if "none" not in self.centring:
            raise ValueError("centring: 'none' has to be among them; the others are set beside it")


@dataclass(frozen=True)
class Params:
    """The whole of `params.yaml`; a section is named after the stage that it configures."""

    encoder: str
    sampler: SamplerName
    collect: Collect
    translate: Translate
    benchmarks: tuple[Benchmark, ...]
    baselines: tuple[BaselineName, ...]
    launch: str = "single"
    executor: Executor = field(default_factory=Executor)
    seed: int = 0
    prompts: Prompts = field(default_factory=Prompts)
    hybrid: Hybrid = field(default_factory=Hybrid)
    parallel: Parallel = field(default_factory=Parallel)
    validate: Validate = field(default_factory=Validate)
    train: Train = field(default_factory=Train)
    evaluate: Evaluate = field(default_factory=Evaluate)
    replicas: Replicas = field(default_factory=Replicas)

    def __post_init__(self) -> None:
        within(self, "seed", 0, None)
        filled(self, "benchmarks")
        filled(self, "baselines")
        distinct(self.baselines, "baselines: '{}' stands twice")
        names = [benchmark.name for benchmark in self.benchmarks]
        distinct(names, "benchmarks: two are called '{}'")


def load(path: Path) -> Params:
    """Read and check `path`.

    Raises:
        UserError: the file is missing, is no YAML mapping, or a key is unknown, missing, of the
            wrong type or out of bounds; the message names file and key.
    """
    loaded: Params = strict.load(path, Params)
    return loaded

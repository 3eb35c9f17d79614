"""The section `train` of the parameters as what the library takes: an encoder made ready, a recipe."""

from torch import Tensor

from hexapla.config import Train
from hexapla.modeling import adapters, embed, tokenization
from hexapla.modeling.encoder import Encoder
from hexapla.modeling.precision import Precision
from hexapla.schema import ParallelBenchmark
from hexapla.training import early_stopping, trainer
from hexapla.training.gradcache import Memory, Objective
from hexapla.training.inputs import Lengths
from hexapla.training.schedules import Schedule


def adapt(learner: Encoder, train: Train, seed: int) -> dict[str, Tensor]:
    """Make the encoder ready; returns the weights that will change, as they are before training."""
    adapters.freeze(learner, embeddings=train.freeze_embeddings, layers=train.freeze_layers)
    changing = adapters.trained(learner) if train.interpolate else {}
    start = {name: weight.detach().clone() for name, weight in changing.items()}
    if train.lora_rank:
        adapters.lora(learner, rank=train.lora_rank, seed=seed)
    if train.gradient_checkpointing:
        adapters.checkpoint_activations(learner)
    if train.compile:
        adapters.compiled(learner)
    return start


def recipe(learner: Encoder, train: Train, precision: Precision) -> trainer.Recipe:
    return trainer.Recipe(
        lengths=Lengths(train.question_tokens, train.passage_tokens, train.negatives),
        schedule=Schedule(train.learning_rate, train.warmup_steps, train.steps, train.schedule),
        objective=Objective(train.temperature, train.two_sided),
        memory=Memory(train.forward_tokens or tokenization.budget(learner.device), train.kept_tokens),
        weight_decay=train.weight_decay,
        clip_norm=train.clip_norm,
        precision=precision,
    )


def validation(
    learner: Encoder, held: ParallelBenchmark, train: Train, precision: Precision
) -> trainer.Validation:
    """Early stopping by the held-out ids, encoded as the training encodes."""
    questions = [question.text for question in held.queries]
    passages = [candidate.text for candidate in held.passages]

    def score() -> float:
        asked = embed.encode(learner, questions, "query", train.question_tokens, precision=precision)
        found = embed.encode(learner, passages, "passage", train.passage_tokens, precision=precision)
        if train.stop_by == "map":
            return early_stopping.multilingual_map(held, asked, found)
        return -early_stopping.multilingual_loss(held, asked, found, train.temperature)

    return trainer.Validation(train.validate_every, train.patience, score)

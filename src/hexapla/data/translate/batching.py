"""Texts of any length by a translation model: which sentences it sees together, and what comes of them."""

from collections.abc import Callable, Sequence

from hexapla.data.translate import passages
from hexapla.data.translate.families import Target
from hexapla.data.translate.pretrained import Checkpoint


def batches(tokens: Sequence[Sequence[int]], budget: int) -> list[list[int]]:
    """Places in `tokens`, longest first, as batches of at most `budget` tokens, padding included.

    Texts of one length stand in the order of their tokens, so that the batches do not depend on the
    order in which texts come. A text longer than the budget is a batch of its own.
    """
    order = sorted(range(len(tokens)), key=lambda place: (-len(tokens[place]), tokens[place]))
    made: list[list[int]] = []
    for place in order:
        # The first of a batch is its longest: all are padded to it.
        if not made or (len(made[-1]) + 1) * len(tokens[made[-1][0]]) > budget:
            made.append([])
        made[-1].append(place)
    return made


Generate = Callable[[list[list[int]], int, Target], list[list[int]]]
"""From a batch of inputs, and the number of tokens that may be written at most, to what a model wrote for
each, without start and end token."""


def translated(
    checkpoint: Checkpoint, texts: Sequence[str], lang: str, budget: int, generate: Generate
) -> list[tuple[str, ...]]:
    """For each English text its translation, as `passages.by_sentence` puts it together.

    A text has none if a sentence is too long for the model, or its translation does not come to an end.

    Args:
        checkpoint: whose tokenizer is used.
        texts: of any length.
        lang: the language to translate to, one of the checkpoint's.
        budget: tokens of a batch, padding included.
        generate: the model.
    """
    target = checkpoint.targets[lang]
    return passages.by_sentence(
        texts, lang, lambda sentences: _sentences(checkpoint, sentences, target, budget, generate)
    )


def _sentences(
    checkpoint: Checkpoint, sentences: Sequence[str], target: Target, budget: int, generate: Generate
) -> list[str | None]:
    tokens = checkpoint.encode(sentences, target)
    fitting = [place for place, ids in enumerate(tokens) if len(ids) <= checkpoint.longest]
    made: list[str | None] = [None] * len(tokens)
    for batch in batches([tokens[place] for place in fitting], budget):
        places = [fitting[number] for number in batch]
        limits = [checkpoint.limit(tokens[place]) for place in places]
        written = generate([tokens[place] for place in places], max(limits), target)
        for place, limit, ids in zip(places, limits, written, strict=True):
            made[place] = checkpoint.decode(ids, limit, target)
    return made

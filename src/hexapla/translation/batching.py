"""Which texts a translation model sees together."""

from collections.abc import Callable, Sequence

from hexapla.translation.families import Target
from hexapla.translation.pretrained import Checkpoint


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


def translated(
    checkpoint: Checkpoint,
    sentences: Sequence[str],
    target: Target,
    budget: int,
    generate: Callable[[list[list[int]], int, Target], list[list[int]]],
) -> list[str | None]:
    """For each sentence its translation, or None: too long for the model, or does not come to an end.

    Args:
        checkpoint: whose tokenizer is used.
        sentences: without white space around them.
        target: how the model is told the language.
        budget: tokens of a batch, padding included.
        generate: from a batch of inputs and the number of tokens that it may write at most to what it
            wrote for each, without start and end token.
    """
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

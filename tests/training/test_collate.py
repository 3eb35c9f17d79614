import pytest
import torch

from hexapla.modeling import encoder as encoders
from hexapla.modeling.encoder import tokenize_texts
from hexapla.training import samplers
from hexapla.training.collate import Lengths, collate
from hexapla.training.loss import ABSENT
from training_worlds import Texts, codes


class Hard(Texts):
    """Rows with no, one and three hard negatives, one of which is the next row's passage."""

    def negatives(self, rows):
        return [
            [[], ["Bananas are berries."], ["a b", "c d", self.pairs[row].passage]][row % 3] for row in rows
        ]


@pytest.fixture
def world(tiny_folder, sample_pairs):
    columns = [[getattr(p, name) for p in sample_pairs] for name in ("id", "lang", "passage_id", "source")]
    index = samplers.build_index(*map(codes, columns))
    learner = encoders.load(str(tiny_folder), prompts={"query": "ask: ", "passage": "text: "}, device="cpu")
    return (
        learner,
        Hard(sample_pairs),
        samplers.BatchPlan(index, sampler="crosslingual", batch_size=8, seed=3),
    )


def rows_of(plan, batch):
    return (
        plan.index.rows[batch.items, batch.query_languages],
        plan.index.rows[batch.items, batch.passage_languages],
    )


def test_a_process_gets_the_pieces_of_its_slice_and_the_ids_of_all(world):
    learner, table, plan = world
    batch = plan.at(5)
    asked, found = (
        tokenize_texts(learner, table.texts(column, rows), side, tokens)
        for column, rows, side, tokens in zip(
            ("question", "passage"), rows_of(plan, batch), ("query", "passage"), (16, 40), strict=True
        )
    )
    for process in range(2):
        inputs = collate(learner, table, plan, Lengths(16, 40), process, 2, 5)
        mine = slice(4 * process, 4 * process + 4)
        assert inputs.tokenized == asked[mine] + found[mine]
        assert inputs.batch.lengths == [len(text["input_ids"]) for text in inputs.tokenized]
        assert max(inputs.batch.lengths) <= 40
        assert inputs.batch.places.tolist() == list(range(8))
        assert (inputs.batch.kinds, inputs.batch.pairs, inputs.pairs, inputs.kind) == (
            2,
            4,
            8,
            "crosslingual",
        )
        assert inputs.batch.passage_ids.tolist() == plan.index.passages[batch.items].tolist()


def test_hard_negatives_stand_in_their_places_and_known_passages_keep_their_ids(world):
    learner, table, plan = world
    batch = plan.at(2)
    _, rows = rows_of(plan, batch)
    given = table.negatives(rows)
    per = [collate(learner, table, plan, Lengths(16, 40, 3), process, 2, 2) for process in range(2)]
    ids = per[0].batch.negative_ids
    assert torch.equal(ids, per[1].batch.negative_ids)
    for pair, texts in enumerate(given):
        there = (ids[:, pair] != ABSENT).sum()
        assert there == len(texts)
        own = int(plan.index.passages[batch.items[pair]])
        assert (ids[:, pair] == own).sum() == (len(texts) == 3)
    assert (ids > plan.index.passages.max()).any()
    for process, inputs in enumerate(per):
        assert inputs.batch.kinds == 5
        mine = given[4 * process : 4 * process + 4]
        assert len(inputs.tokenized) == 8 + sum(map(len, mine))
        wanted = [8 + 4 * j + i for j in range(3) for i, texts in enumerate(mine) if j < len(texts)]
        assert inputs.batch.places[8:].tolist() == wanted


def test_another_epoch_brings_other_hard_negatives(world):
    learner, table, plan = world

    def first(step):
        inputs = collate(learner, table, plan, Lengths(16, 40, 1), 0, 1, step)
        return {tuple(text["input_ids"]) for text in inputs.tokenized[16:]}

    seen = [
        set().union(*(first(epoch * len(plan) + step) for step in range(len(plan)))) for epoch in range(2)
    ]
    a_b, c_d = (
        tuple(tokenize_texts(learner, [text], "passage", 40)[0]["input_ids"]) for text in ("a b", "c d")
    )
    assert a_b in seen[0]
    assert c_d not in seen[0]
    assert c_d in seen[1]
    assert a_b not in seen[1]

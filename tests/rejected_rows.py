"""Rows that `validate` rejected, next to the table that it read, for the tests of what shows them."""

from hexapla.io import tables as parquet
from hexapla.schema import QUALITY_COLUMNS, Pair, Quality

ENGLISH = {
    f"s/{i}": Pair(f"s/{i}", "s", "en", f"Question {i}?", f"Passage {i}.", "", f"p{i}", "original")
    for i in range(6)
}


def row(i, lang="de", source="s", quality=None, reasons="", match="", **texts):
    pair = ENGLISH[f"s/{i}"]._replace(
        lang=lang, source=source, question=f"Frage {i}?", passage=f"Absatz {i}.", engine="memory"
    )
    quality = quality or Quality(cosine=0.9, length_ratio=1.0)
    return (*pair._replace(**texts), *quality, reasons, match)


REJECTED = [
    row(0, reasons="passage language: fr; answer in the passage"),
    row(1, lang="zh", reasons="passage script: 0.4", passage="一二三四五六七八九十"),
    row(4, reasons="not in a benchmark", match="xquad-r (de): Wer malte sie?"),
    row(5, lang="zh", source="t", reasons="passage language"),
]


def write_tables(folder):
    """Write the English rows as two parts; return their folder, and a function that writes a table of rows."""
    pairs = folder / "pairs"
    pairs.mkdir()
    plain = [(*pair, *Quality()) for pair in ENGLISH.values()]
    parquet.write_pairs(pairs / "00-en-00-s-00000.parquet", plain[:3], QUALITY_COLUMNS)
    parquet.write_pairs(pairs / "00-en-00-s-00001.parquet", plain[3:], QUALITY_COLUMNS)

    def write(rows, name="quarantine.parquet", extra=(*QUALITY_COLUMNS, "reasons", "match")):
        parquet.write_pairs(folder / name, rows, extra)
        return folder / name

    return pairs, write

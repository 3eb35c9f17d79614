"""A server and folders in the real benchmarks' formats, so that no test needs a network."""

import contextlib
import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as pq

WORDS = ("moon", "river", "bread", "stone", "lamp", "glass")


def paragraph(*qas, sentences=("One is here.", "Two is there.")):
    """A paragraph whose questions, (id, sentence), are answered by a sentence's first word."""
    context, breaks = " ".join(sentences), []
    for sentence in sentences:
        start = context.index(sentence, breaks[-1][1] if breaks else 0)
        breaks.append([start, start + len(sentence)])
    return {
        "context": context,
        "sentences": list(sentences),
        "sentence_breaks": breaks,
        "qas": [
            {
                "id": name,
                "question": f"What is {name}?",
                "answers": [{"text": sentences[number].split()[0], "answer_start": breaks[number][0]}],
            }
            for name, number in qas
        ],
    }


def lareqa(*paragraphs):
    return json.dumps({"version": 1.0, "data": [{"title": "t", "paragraphs": list(paragraphs)}]})


def mteb(folder, lang, shards=1):
    """A language of MIRACL as MTEB's mirrors lay it out: two questions, three passages."""
    tables = {
        "corpus": {"_id": ["1#0", "1#1", "2#0"], "text": ["a", "b", "c"], "title": ["A", "A", "B"]},
        "queries": {"_id": ["7", "8"], "text": ["which a?", "which c?"]},
        "qrels": {"query-id": ["7", "7", "8"], "corpus-id": ["1#0", "1#1", "2#0"], "score": [1, 0, 1]},
    }
    for kind, columns in tables.items():
        (folder / f"{lang}-{kind}").mkdir(parents=True)
        count = shards if kind == "corpus" else 1
        for number in range(count):
            part = {name: values[number::count] for name, values in columns.items()}
            name = f"dev-{number:05d}-of-{count:05d}.parquet"
            pq.write_table(pa.table(part), folder / f"{lang}-{kind}" / name)
    return folder


@contextlib.contextmanager
def serving(answers):
    """A server of `answers`, {path: bodies, or (status, headers, body)}: one an ask, the last for good.

    Yields its address, and the list of the paths that were asked for.
    """
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            queue = answers.get(self.path, [(404, {}, b"")])
            answer = queue.pop(0) if len(queue) > 1 else queue[0]
            status, headers, body = answer if isinstance(answer, tuple) else (200, {}, answer)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def miracl(folder, lang="yo", size=150):
    """Topic i asks for word i; the first passages hold the words, the others nothing that is asked for."""
    own, corpus = folder / f"miracl-v1.0-{lang}", folder / f"miracl-corpus-v1.0-{lang}"
    for each in (own / "topics", own / "qrels", corpus):
        each.mkdir(parents=True)
    name = f"miracl-v1.0-{lang}-dev.tsv"
    topics = "".join(f"{i}\t{lang} {word}\n" for i, word in enumerate(WORDS))
    (own / "topics" / f"topics.{name}").write_text(topics)
    qrels = "".join(f"{i} Q0 {i}#0 1\n" for i in range(len(WORDS)))
    (own / "qrels" / f"qrels.{name}").write_text(qrels)
    texts = [*(f"{lang} {word}" for word in WORDS), *(f"{lang} filler{i}" for i in range(size - len(WORDS)))]
    lines = [json.dumps({"docid": f"{i}#0", "title": "", "text": text}) for i, text in enumerate(texts)]
    (corpus / "docs-0.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return folder

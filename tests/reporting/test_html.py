from html.parser import HTMLParser

from hexapla.reporting import html as pages

TEXT = """# A & B

| model | x |
|:------|--:|
| a     | **1** |

![plot](figures/a.png)

<img src=x onerror=alert(1)>

[docs](validation/index.html) [bad](javascript:alert(1))
"""


class Reader(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_page_needs_nothing_beside_it():
    html = pages.page(TEXT, {"figures/a.png": b"\x89PNG"})
    tags = Reader(html).tags
    assert [a["src"] for t, a in tags if t == "img"] == ["data:image/png;base64,iVBORw=="]
    assert not [t for t, _ in tags if t in ("script", "link", "iframe")]
    assert "<title>A &amp; B</title>" in html


def test_markup_in_the_text_is_shown_not_taken():
    html = pages.page(TEXT, {})
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    assert [a["href"] for t, a in Reader(html).tags if t == "a"] == ["validation/index.html"]


def test_tables_can_be_wider_than_the_window():
    html = pages.page(TEXT, {})
    assert (
        html.index("<div class=wide>")
        < html.index("<table>")
        < html.index("</table>")
        < html.index("</main>")
    )
    assert "<strong>1</strong>" in html


def test_links_within_the_page_arrive():
    html = pages.page("# A\n\n[go](#how-sure-r1-is)\n\n## How sure (R@1) is\n\n## How sure (R@1) is\n", {})
    tags = Reader(html).tags
    names = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert names == ["a", "how-sure-r1-is", "how-sure-r1-is-1"]
    assert [attrs["href"] for tag, attrs in tags if tag == "a"] == ["#how-sure-r1-is"]

"""The whole book as one page for paper, ``print.html``: made of the finished pages, so it says what they say.

Sphinx's own ``singlehtml`` reads and writes the whole book a second time, keeps the folds, and gives sections that have
one title in many chapters ("Exercises") one id.
"""

import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from bs4 import BeautifulSoup, SoupStrainer, Tag

NAME = "print.html"
#: What paper cannot unfold or move, and the marks that link a heading to itself. The slider's figure stands below it.
LEFT_OUT = "details.hide, .threshold-slider, a.headerlink, script, noscript"
NOTE = """<p class="print-note">All pages of the book in one, to print or to save as PDF. Folded code and the solutions
of the exercises are left out. <a href="index.html">To the book itself</a></p>"""


def setup(app):
    """Write the page when all others are there."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write(app, exception: Exception | None) -> None:
    """Join the pages of an HTML build that came to its end."""
    if exception is None and app.builder.format == "html":
        folder = Path(app.outdir)
        (folder / NAME).write_text(join(folder, reading_order(app.env)), encoding="utf-8")


def reading_order(env) -> list[str]:
    """Names of the pages in the order of the table of contents, the landing page first."""
    order, following = [], env.config.root_doc
    relations = env.collect_relations()
    while following:
        order.append(following)
        following = relations[following][2]
    return order


def join(folder: Path, pages: Sequence[str]) -> str:
    """HTML of one page with the articles of `pages` (names without suffix), the first of which lends its head."""
    articles = {page: _article(folder / f"{page}.html") for page in pages}
    ids = {page: {tag["id"] for tag in article.find_all(id=True)} for page, article in articles.items()}
    contents = "".join(
        f'<li><a href="#{_key(p)}">{a.h1.decode_contents().strip()}</a></li>' for p, a in articles.items()
    )
    for page, article in articles.items():
        _rename(article, page, ids)
    shell = BeautifulSoup((folder / f"{pages[0]}.html").read_text(encoding="utf-8"), "html.parser")
    _keep_style_and_mathematics(shell)
    shell.body.attrs = {"class": "print-version"}
    shell.body.clear()
    shell.body.append(main := shell.new_tag("main"))
    first, *others = articles.values()
    listed = f'<nav class="print-contents" aria-label="Contents"><h2>Contents</h2><ul>{contents}</ul></nav>'
    for part in (_fragment(NOTE), first, _fragment(listed), *others):
        main.append(part)
    return str(shell)


def _fragment(html: str) -> Tag:
    """The one element that a piece of HTML holds."""
    return BeautifulSoup(html, "html.parser").find()


def _article(path: Path) -> Tag:
    """Article of a page, without what is left out; other folds are opened."""
    only = SoupStrainer("article", class_="bd-article")
    article = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser", parse_only=only).find("article")
    for tag in article.select(LEFT_OUT):
        tag.decompose()
    for cell in article.select("div.cell"):
        if not cell.find(["img", "table"]) and not cell.get_text(strip=True):
            cell.decompose()
    for fold in article.find_all("details"):
        fold["open"] = ""
    return article


def _key(page: str) -> str:
    """Id of a page's article."""
    return page.replace("/", "-")


def _rename(article: Tag, page: str, ids: Mapping[str, set[str]]) -> None:
    """Put the page's name before every id, and let links and images say where things are from the joined page."""
    for tag in article.find_all(id=True):
        tag["id"] = f"{_key(page)}--{tag['id']}"
    article["id"] = _key(page)
    for name in ("href", "src"):
        for tag in article.find_all(**{name: True}):
            tag[name] = address(tag[name], page, ids)
    for style in article.find_all("style"):  # pandas addresses the cells of a coloured table by their ids
        prefixed = re.sub(r"#([\w-]+)", lambda m: f"#{_key(page)}--{m[1]}" if m[1] in ids[page] else m[0], style.text)
        style.string = prefixed


def address(url: str, page: str, ids: Mapping[str, set[str]]) -> str:
    """Address, from the joined page, of what `url` means on `page`.

    A place that was left out becomes the start of its page; what lies outside of the joined pages stays a file.
    """
    parts = urlsplit(url)
    if parts.scheme or parts.netloc:
        return url
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), parts.path)) if parts.path else f"{page}.html"
    target = path.removesuffix(".html")
    if target not in ids:
        return path + (f"#{parts.fragment}" if parts.fragment else "")
    return f"#{_key(target)}--{parts.fragment}" if parts.fragment in ids[target] else f"#{_key(target)}"


def _keep_style_and_mathematics(shell: BeautifulSoup) -> None:
    """Drop from the head what serves navigation."""
    for script in shell.head.find_all("script"):
        if "mathjax" not in str(script).lower():
            script.decompose()
    for link in shell.head.find_all("link"):
        if not {"stylesheet", "icon"} & set(link.get("rel", [])):
            link.decompose()
    shell.title.string = f"{shell.title.text.split(' — ')[-1]}, print version"

"""What the book's own Sphinx extensions do to its pages; no book is built here."""

import importlib.util
from types import SimpleNamespace

import pytest
from bs4 import BeautifulSoup
from docutils import nodes
from docutils.core import publish_doctree
from myst_parser.docutils_ import Parser

from atsdp_utils.foundation import paths


def _extension(name: str):
    spec = importlib.util.spec_from_file_location(name, paths.BOOK / "_extensions" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


links, printed, unknown = map(_extension, ("glossary_links", "print_version", "unknown_values"))

# --- values that no run could compute ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("glued", "classes", "shown"),
    [
        ("+nan", ["pasted-text"], "unknown"),
        ("nan%", ["pasted-text"], "unknown"),
        ("0.95", ["pasted-text"], "0.95"),
        ("nanoparticles", ["pasted-text"], "nanoparticles"),
        ("nan", [], "nan"),
    ],
)
def test_a_glued_value_that_is_no_number_is_a_word(glued, classes, shown):
    value = nodes.inline(glued, glued, classes=classes)
    unknown.name_unknown(nodes.paragraph("", "", nodes.Text("from "), value))
    assert value.astext() == shown


# --- first uses of the glossary's terms -------------------------------------------------------------------------------

TERMS = ("twin", "null twin", "AUC", "fold", "sensitive", "profile", "Holm's adjustment")


def _linked(markdown: str) -> list[tuple[str, str]]:
    """Text and address of every link to a term, after linking; the text of the page must stay as it was."""
    options = {"myst_enable_extensions": ["dollarmath", "deflist"], "_disable_config": True}
    tree = publish_doctree(markdown, parser=Parser(), settings_overrides=options)
    before = tree.astext()
    links.link_first_uses(tree, {term: f"glossary.html#{term}" for term in TERMS})
    assert tree.astext() == before
    found = [r for r in tree.findall(nodes.reference) if "term" in r["classes"]]
    return [(r.astext(), r["refuri"].removeprefix("glossary.html#")) for r in found]


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("A twin and a twin.", [("twin", "twin")]),
        ("One paragraph.\n\n- a list with twins\n- and a twin", [("twins", "twin")]),
        ("The null\ntwins, then the twins.", [("null\ntwins", "null twin"), ("twins", "twin")]),
        ("The auc of all folds: an *AUC*.", [("auc", "AUC"), ("folds", "fold")]),
        ("With Holm’s adjustment.", [("Holm’s adjustment", "Holm's adjustment")]),
        ("An expression profile; the quick profile.", [("profile", "profile")]),
        ("Twinned; twofold, two-fold, fold-wise; P(sensitive); profile_1.", []),
        ("# A twin\n\n`twin` and ``a twin``, $twin$, [the twin](x.md), **Twin.** <b title='twin'>x</b>", []),
        ("```python\ntwin = 1\n```\n\n$$\ntwin\n$$\n\n    twin", []),
        ("| twin | AUC |\n|---|---|\n| a twin | 1 |", [("twin", "twin")]),
        ("twin\n: the AUC of one", [("AUC", "AUC")]),
    ],
)
def test_first_use_in_prose_is_linked(markdown, expected):
    assert _linked(markdown) == expected


def test_code_cells_and_their_outputs_are_left_alone():
    cell = nodes.container("", nodes.paragraph("", "a twin"), classes=["cell"])
    prose = nodes.paragraph("", "another twin")
    links.link_first_uses(nodes.section("", cell, prose), {"twin": "glossary.html#twin"})
    assert not list(cell.findall(nodes.reference)) and len(list(prose.findall(nodes.reference))) == 1


def test_other_senses_still_occur():
    text = " ".join(p.read_text() for p in (*paths.NOTEBOOKS.glob("*.ipynb"), *paths.BOOK.glob("*.md")))
    assert [s for s in links.OTHER_SENSES if s not in text] == []


# --- the print version ------------------------------------------------------------------------------------------------

PAGE = """<!DOCTYPE html><html lang="en"><head><title>Home — Book</title><link rel="stylesheet" href="_static/a.css">
<link rel="next" href="b.html"><script src="nav.js"></script><script src="mathjax/tex.js"></script></head>
<body data-x="1"><nav>Navigation</nav><article class="bd-article">{}</article></body></html>"""
HOME = """<section id="top"><h1>Book<a class="headerlink" href="#top">#</a></h1><a href="notebooks/b.html#plot">plot</a>
<a href="other.html">other</a></section>"""
CHAPTER = """<section id="top"><span id="nb-01"></span><h1>1. <em>First</em></h1><a href="#nb-01">here</a>
<a href="#answer">answer</a><img id="plot" src="../_images/x.png" alt="x">
<div class="cell"><details class="hide"><summary>Show</summary><pre id="answer">6 * 7</pre></details></div>
<details><summary>All</summary>rows</details><style>#plot, .y {color: #fff}</style><script>act()</script></section>"""


@pytest.fixture
def joined(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "index.html").write_text(PAGE.format(HOME))
    (tmp_path / "notebooks" / "b.html").write_text(PAGE.format(CHAPTER))
    return BeautifulSoup(printed.join(tmp_path, ["index", "notebooks/b"]), "html.parser")


def test_pages_are_joined_in_order_and_listed(joined):
    assert [a["id"] for a in joined.find_all("article")] == ["index", "notebooks-b"]
    contents = [(a["href"], a.text) for a in joined.select("nav a")]
    assert contents == [("#index", "Book"), ("#notebooks-b", "1. First")]
    assert joined.title.text == "Book, print version" and "Navigation" not in joined.text


def test_ids_and_links_of_joined_pages_agree(joined):
    ids = [t["id"] for t in joined.find_all(id=True)]
    assert len(ids) == len(set(ids)) and {"index--top", "notebooks-b--top", "notebooks-b--plot"} <= set(ids)
    found = [a["href"] for a in joined.select("article a")]
    assert found == ["#notebooks-b--plot", "other.html", "#notebooks-b--nb-01", "#notebooks-b"]
    assert joined.img["src"] == "_images/x.png"
    assert joined.style.text == "#notebooks-b--plot, .y {color: #fff}"


def test_print_version_drops_folds_and_navigation(joined):
    assert "6 * 7" not in joined.text and not joined.select("div.cell") and joined.details.has_attr("open")
    assert [s["src"] for s in joined.find_all("script")] == ["mathjax/tex.js"]
    assert [link["href"] for link in joined.find_all("link")] == ["_static/a.css"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.org/a.html#x", "https://example.org/a.html#x"),
        ("mailto:someone@example.org", "mailto:someone@example.org"),
        ("../glossary.html#term-twin", "#glossary--term-twin"),
        ("../glossary.html#gone", "#glossary"),
        ("../glossary.html", "#glossary"),
        ("#", "#notebooks-b"),
        ("../_downloads/1f/table1.csv", "_downloads/1f/table1.csv"),
        ("../genindex.html#A", "genindex.html#A"),
    ],
)
def test_address_from_the_joined_page(url, expected):
    assert printed.address(url, "notebooks/b", {"glossary": {"term-twin"}, "notebooks/b": set()}) == expected


def test_reading_order_follows_the_table_of_contents():
    relations = {"index": [None, None, "a"], "a": ["index", "index", "b"], "b": ["index", "a", None], "lost": []}
    env = SimpleNamespace(config=SimpleNamespace(root_doc="index"), collect_relations=lambda: relations)
    assert printed.reading_order(env) == ["index", "a", "b"]


@pytest.mark.parametrize(("exception", "kind"), [(RuntimeError("stopped"), "html"), (None, "latex")])
def test_only_a_complete_html_build_gets_a_print_version(tmp_path, exception, kind):
    app = SimpleNamespace(builder=SimpleNamespace(format=kind), outdir=tmp_path)
    printed.write(app, exception)
    assert not list(tmp_path.iterdir())

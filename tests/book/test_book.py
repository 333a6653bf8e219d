"""The built book, as a reader's browser sees it: nothing from elsewhere, no errors, nothing broken, phone width too.

Looks at the smoke book that `make test` builds just before; skipped, with the reason, where there is none.
"""

import functools
import http.server
import json
import shutil
import threading
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright

from atsdp_utils.foundation import paths

HTML = paths.run_dir("embedded", "smoke") / "html"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

needs_book = pytest.mark.skipif(
    not (HTML / "index.html").exists(), reason="no book: run `make reproduce PROFILE=smoke`"
)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found; install it to test the pages in it")


def pages() -> list[Path]:
    """Every page a reader can reach, in a fixed order."""
    left_out = {"genindex.html", "search.html"}
    found = [*HTML.glob("*.html"), *HTML.glob("notebooks/*.html")]
    return sorted(p for p in found if p.name not in left_out)


# --- without a browser ------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Links, images, resources, articles and ids of a page, ids that come twice, and how many folds are closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links, self.images, self.loaded, self.ids = [], [], [], set()
        self.articles, self.repeated, self.closed = [], [], 0
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        self.repeated += [a["id"]] if a.get("id") in self.ids else []
        self.ids.update(x for x in (a.get("id"), a.get("name") if tag == "a" else None) if x)
        if tag == "a" and a.get("href"):
            self.links.append(a["href"])
        if tag == "article":
            self.articles.append(a.get("id"))
        self.closed += tag == "details" and "open" not in a
        if tag == "img":
            self.images.append((a.get("src", ""), a.get("alt")))
        if tag in ("script", "img", "iframe", "source") and a.get("src"):
            self.loaded.append(a["src"])
        if tag == "link" and a.get("rel") not in ("canonical",) and a.get("href"):
            self.loaded.append(a["href"])


@pytest.fixture(scope="module")
def parsed() -> dict[Path, Page]:
    return {p: Page(p) for p in pages()}


@needs_book
def test_every_internal_link_and_image_resolves(parsed):
    broken = []
    for path, page in parsed.items():
        for target in [*page.links, *page.loaded]:
            url = urllib.parse.urlsplit(target)
            if url.scheme or url.netloc:
                continue
            file = path if not url.path else (path.parent / urllib.parse.unquote(url.path)).resolve()
            anchor = urllib.parse.unquote(url.fragment)
            if not file.exists():
                broken.append(f"{path.name}: {target}")
            elif anchor and file in parsed and anchor not in parsed[file].ids:
                broken.append(f"{path.name}: {target} (no such place)")
    assert not broken, "\n".join(sorted(set(broken)))


@needs_book
def test_nothing_is_loaded_from_another_host(parsed):
    assert [(p.name, u) for p, page in parsed.items() for u in page.loaded if urllib.parse.urlsplit(u).netloc] == []


@needs_book
def test_images_say_what_they_show(parsed):
    mute = [(p.name, src) for p, page in parsed.items() for src, alt in page.images if not alt or "image" in src == alt]
    assert not mute


@needs_book
def test_print_version_holds_every_page_once(parsed):
    side = BeautifulSoup((HTML / "index.html").read_text(), "html.parser").select("nav.bd-docs-nav a")
    chapters = [a["href"].removesuffix(".html").replace("/", "-") for a in side]
    page = parsed[HTML / "print.html"]
    assert page.articles == ["index", *chapters[1:]]
    assert {f"notebooks-{n.stem}" for n in paths.NOTEBOOKS.glob("[0-9]*.ipynb")} <= set(page.articles)
    assert page.repeated == [] and page.closed == 0
    assert [x for x in page.links if x.startswith("../")] == []
    assert "print.html" in parsed[HTML / "index.html"].links


@needs_book
def test_every_notebook_can_be_downloaded_with_its_tables_and_figures(parsed):
    notebooks = [p for p in parsed if p.parent.name == "notebooks"]
    assert notebooks
    for path in notebooks:
        links = parsed[path].links
        fragment = json.loads((HTML.parent / "manifest" / f"{path.stem}.json").read_text())
        written = {file for made in fragment.values() for file in made["files"]}
        assert f"../_sources/notebooks/{path.stem}.ipynb" in links
        assert written and written <= {x.rsplit("/", 1)[1] for x in links if "/_downloads/" in x}


@needs_book
def test_first_uses_of_terms_lead_to_the_glossary(parsed):
    for path, page in parsed.items():
        terms = [x for x in page.links if "glossary.html#term-" in x]
        if path.parent.name == "notebooks":
            assert terms, path.name
        if path.name != "glossary.html":
            assert len(terms) == len(set(terms)), path.name


@needs_book
def test_search_index_knows_a_term():
    assert "mmd" in (HTML / "searchindex.js").read_text()


# --- in a browser -----------------------------------------------------------------------------------------------------


class Reader:
    """A reader's browser: opens pages, and notes what a page complains of and which other hosts it asks."""

    def __init__(self, playwright) -> None:
        self.browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        self.page = self.browser.new_page()
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))
        self.page.on("console", lambda m: self.complaints.append(f"console: {m.text}") if m.type == "error" else None)
        self.page.on("request", self._asked)

    def _asked(self, request) -> None:
        url = urllib.parse.urlsplit(request.url)
        if url.scheme in ("http", "https", "ws", "wss") and url.hostname != "127.0.0.1":
            self.complaints.append(f"request to {url.hostname}")

    def open(self, url: str, width: int) -> None:
        """Load a page at a width and wait until it, and its mathematics, is there."""
        self.complaints.clear()
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.goto(url)
        self.evaluate("window.MathJax && MathJax.startup ? MathJax.startup.promise.then(() => true) : true")

    def evaluate(self, expression: str):
        """Value of a JavaScript expression, awaited."""
        return self.page.evaluate(expression)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that prints nothing."""

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def site():
    handler = functools.partial(Quiet, directory=str(HTML))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler, bind_and_activate=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        reader = Reader(playwright)
        yield reader
        reader.browser.close()


OVERFLOWING = """(() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width + 1) return [];
  const wide = [...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > width + 1);
  return wide.slice(0, 5).map(e => e.tagName + '.' + e.className).concat(document.documentElement.scrollWidth);
})()"""
BROKEN_MATHS = "document.querySelectorAll('mjx-merror, mjx-container [data-mjx-error]').length"
UNRENDERED = "[...document.querySelectorAll('.math')].filter(e => !e.querySelector('mjx-container')).length"
#: Pixels of the longest chapter at 1440 px; the committed ones have 12,000 at most, fonts of another machine take more.
LONGEST = 12_600
BROKEN_IMAGES = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"

# Contrast as in WCAG 2.1 of every text that can be seen, folds opened, against the colours behind it. Text over a
# picture is left out. Answers the number of texts, and a line for each kind that is too faint.
CONTRAST = """(() => {
  document.querySelectorAll('details').forEach(d => d.open = true);
  document.head.insertAdjacentHTML('beforeend', '<style>* {transition: none !important}</style>');
  const pixel = document.createElement('canvas').getContext('2d', {willReadFrequently: true}), known = new Map();
  const colour = css => {
    if (!known.has(css)) {
      pixel.clearRect(0, 0, 1, 1); pixel.fillStyle = css; pixel.fillRect(0, 0, 1, 1);
      known.set(css, [...pixel.getImageData(0, 0, 1, 1).data].map(x => x / 255));
    }
    return known.get(css);
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((x, i) => a * x + (1 - a) * below[i]);
  const light = rgb => rgb.map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
    .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const style = getComputedStyle(e);
      if (style.backgroundImage !== 'none') return null;
      layers.unshift(colour(style.backgroundColor));
      if (layers[0][3] === 1) break;
    }
    return layers.reduce((below, layer) => over(layer, below), [1, 1, 1]);
  };
  const opacity = e => e ? getComputedStyle(e).opacity * opacity(e.parentElement) : 1;
  const seen = text => {
    const range = document.createRange(), e = text.parentElement;
    range.selectNodeContents(text);
    const {width, height} = range.getBoundingClientRect();
    return text.data.trim() && width > 1 && height > 1 && !e.closest('svg, :disabled') &&
      e.checkVisibility({opacityProperty: true, visibilityProperty: true});
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), faint = new Map();
  let count = 0;
  while (walker.nextNode()) {
    const text = walker.currentNode, e = text.parentElement;
    if (!seen(text)) continue;
    const ground = behind(e), style = getComputedStyle(e), size = parseFloat(style.fontSize);
    if (!ground) continue;
    count += 1;
    const [r, g, b, a] = colour(style.color), own = light(over([r, g, b, a * opacity(e)], ground));
    const ratio = (Math.max(own, light(ground)) + 0.05) / (Math.min(own, light(ground)) + 0.05);
    if (ratio < (size >= 24 || size >= 18.66 && style.fontWeight >= 700 ? 3 : 4.5)) {
      const rgb = ground.map(x => Math.round(255 * x));
      const kind = `${e.tagName}: ${style.color} on rgb(${rgb}), ${ratio.toFixed(2)}`;
      faint.set(kind, faint.get(kind) || `${kind}, such as "${text.data.trim().slice(0, 30)}"`);
    }
  }
  return {count, faint: [...faint.values()]};
})()"""


@needs_book
@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [1440, 390])
def test_pages_in_a_browser(site, browser, width):
    found = []
    for path in pages():
        browser.open(f"{site}/{path.relative_to(HTML).as_posix()}", width)
        found += [f"{path.name}: {c}" for c in browser.complaints]
        for name, expression in (("too wide", OVERFLOWING), ("images", BROKEN_IMAGES)):
            value = browser.evaluate(expression)
            found += [f"{path.name}: {name} {value}"] if value else []
        height = browser.evaluate("document.documentElement.scrollHeight")
        if width == 1440 and path.parent.name == "notebooks" and height > LONGEST:
            found.append(f"{path.name}: {height:,} px long, expected {LONGEST:,} at most: cut, fold or move a part")
        for name, expression in (("bad maths", BROKEN_MATHS), ("maths left as text", UNRENDERED)):
            value = browser.evaluate(expression)
            found += [f"{path.name}: {value} × {name}"] if value else []
    assert not found, "\n".join(found)


@needs_book
@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(site, browser, theme):
    faint = {}
    for path in pages():
        browser.open(f"{site}/{path.relative_to(HTML).as_posix()}", 1440)
        if theme == "dark" and not browser.evaluate("!!document.querySelector('.theme-switch-button')"):
            continue  # the print version is always light
        browser.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        found = browser.evaluate(CONTRAST)
        assert found["count"] > 20, path.name
        faint |= {line: path.name for line in found["faint"]}
    assert not faint, "\n".join(f"{name}: {line}" for line, name in faint.items())


@needs_browser
def test_contrast_is_measured(browser):
    texts = {
        "color: #777": 1,  # 4.48
        "color: #767676": 0,  # 4.54
        "color: #777; font-size: 24px": 0,
        "color: #999; font-size: 24px": 1,
        "color: #777; font: bold 19px serif": 0,
        "color: #000; opacity: 0.5": 1,
        "color: #fff; background: #fff; visibility: hidden": 0,
        "color: #777; background: linear-gradient(red, blue)": 0,
        "color: #000; background: rgb(0 0 0 / 0.6)": 1,
    }
    for style, expected in texts.items():
        browser.open("data:text/html," + urllib.parse.quote(f'<body><p style="{style}">text</p></body>'), 1440)
        assert len(browser.evaluate(CONTRAST)["faint"]) == expected, style
    nested = '<body style="background: #000"><div style="color: #555"><b style="background: #fff">text</b> text</div>'
    browser.open("data:text/html," + urllib.parse.quote(nested), 1440)
    assert browser.evaluate(CONTRAST) == {
        "count": 2,
        "faint": ['DIV: rgb(85, 85, 85) on rgb(0,0,0), 2.82, such as "text"'],
    }


@needs_book
@needs_browser
@pytest.mark.slow
def test_print_version_fits_on_paper(site, browser):
    browser.open(f"{site}/print.html", 703)  # A4 less margins of 12 mm, at 96 dots an inch
    browser.page.emulate_media(media="print")
    wide = browser.evaluate(OVERFLOWING)
    browser.page.emulate_media(media="screen")
    assert not wide


@needs_book
@needs_browser
def test_search_finds_a_term(site, browser):
    browser.open(f"{site}/search.html?q=pseudotime", 1440)
    browser.page.wait_for_selector("#search-results li a")
    assert browser.complaints == []

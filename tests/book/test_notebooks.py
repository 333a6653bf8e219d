"""The shape of notebooks, their running, the cleared copies and the assembly of the book."""

import ast
import copy
import json
import re
import subprocess
import sys
import time

import nbformat
import pytest

from atsdp_utils.foundation import paths
from book import build

OPENING = "(nb-05)=\n# Title\n\nDoes it?\n\n**What you will learn.** x\n\n**Prerequisites.** y\n\n**Run time.** z"

TASK = "Do. *Hint:* it. *Expected:* a number. About five minutes."


def _cell(kind: str, name: str, source: str, *tags: str, **metadata):
    cell = (nbformat.v4.new_markdown_cell if kind == "md" else nbformat.v4.new_code_cell)(source)
    cell["id"] = name
    cell.metadata.update(metadata | ({"tags": list(tags)} if tags else {}))
    return cell


def _good():
    figure = {"mystnb": {"figure": {"name": "fig-2a", "caption": "What."}, "image": {"alt": "What is seen."}}}
    cells = [
        _cell("md", "opening", OPENING),
        _cell("code", "parameters", build.PARAMETERS, "parameters"),
        _cell("md", "see", "## A figure"),
        _cell("code", "figure", 'run.figure(fig, "fig2a")', **figure),
        _cell("md", "holds", "## What holds, what does not"),
        _cell("md", "exercises", "## Exercises\n\n1. One"),
    ]
    for i in range(3):
        cells += [_cell("md", f"task-{i}", TASK), _cell("code", f"answer-{i}", "6 * 7", "solution", "hide-cell")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return notebook


def _problems(notebook, folder):
    (folder / "05_shape.ipynb").write_text(nbformat.v4.writes(notebook))
    return build.problems(folder / "05_shape.ipynb")


def test_a_good_notebook_has_no_problems(tmp_path):
    assert _problems(_good(), tmp_path) == []


def _set(cell: int, **values):
    def change(notebook):
        notebook.cells[cell].update(values)

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_set(0, source="# Title"), "no label"),
        (_set(0, source=OPENING.replace("**Run time.**", "")), "'Run time'"),
        (_set(1, source='DATA = "geo"'), "parameters: expected one tagged cell"),
        (_set(3, execution_count=3), "holds outputs"),
        (_set(3, id="deadbeef"), "not a chosen name"),
        (_set(3, id="opening"), "used twice"),
        (_set(3, source="\n".join(["x = 1"] * 26)), "26 lines"),
        (_set(3, metadata={}), "figure without alt text"),
        (_set(2, source="#### Deep"), "a level is skipped"),
        (_set(4, source="## End"), "no section 'What holds"),
        (_set(3, source='open("/home/someone/x")'), "path of a machine"),
        (lambda n: n.cells.pop(), "2 solutions"),
        (lambda n: n.cells[-1].metadata.update(tags=["solution"]), "needs the tag hide-cell"),
        (_set(-2, source=TASK.replace("Hint", "")), "without a hint"),
        (_set(-2, source=TASK.replace("Expected", "")), "without what to expect"),
        (_set(-2, source=TASK.replace("minutes", "")), "without its minutes"),
        (lambda n: n.metadata.pop("kernelspec"), "kernelspec"),
    ],
)
def test_a_departure_is_found(tmp_path, change, expected):
    notebook = _good()
    change(notebook)
    assert any(expected in p for p in _problems(notebook, tmp_path))


@pytest.mark.parametrize("path", build.numbered(), ids=lambda p: p.stem)
def test_committed_notebooks_have_the_common_shape(path):
    assert build.problems(path) == []


@pytest.mark.parametrize("path", build.numbered(), ids=lambda path: path.stem[:2])
def test_every_table_has_one_caption_and_no_caption_is_left_over(path):
    notebook = nbformat.read(path, as_version=4)
    trees = [ast.parse(c.source) for c in notebook.cells if c.cell_type == "code"]
    calls = [n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Call)]
    tables = [call for call in calls if ast.unparse(call.func) == "run.table"]
    own = {call.args[1].value for call in tables if any(k.arg == "caption" for k in call.keywords)}
    named = {call.args[1].value for call in tables if isinstance(call.args[1], ast.Constant)}
    captions = notebook.metadata.tables
    assert named - own <= set(captions) and not own & set(captions)
    literals = {n.value for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Constant)}
    assert set(captions) <= literals and all(captions.values())


def test_lab_copies_hold_no_solution_and_spare_a_students_work(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    notebook = _good()
    notebook.cells[2].source += "\n\n{glue:text}`auc:.2f` of {glue:text}`04.ipynb::other`"
    notebook.cells[3].metadata["tags"] = ["hide-input"]
    nbformat.write(notebook, tmp_path / "05_shape.ipynb")
    lab = tmp_path / "lab"
    build.lab(lab)
    text = (lab / "05_shape.ipynb").read_text()
    assert text.count(build.BLANK) == 3 and "6 * 7" not in text
    copy_ = nbformat.read(lab / "05_shape.ipynb", as_version=4)
    assert (
        copy_.cells[1].source.endswith(build.ELSEWHERE) and (lab / "lab-run" / "embedded-quick" / "table3.csv").exists()
    )
    assert "‹auc› of ‹04.ipynb::other›" in text and copy_.cells[3].metadata["jupyter"]["source_hidden"]
    (lab / "05_shape.ipynb").write_text("mine")
    build.lab(lab)
    assert (lab / "05_shape.ipynb").read_text() == "mine"


def test_text_of_lab_copies_is_plain():
    text = build.plain(
        "(nb-05)=\n# T {ref}`nb-03`, {ref}`ledger 1 <ambiguity-1>` {cite}`a2020`\n"
        ":::{admonition} In short\n- x {glue:text}`a:.2f` [t.csv](../files/t.csv)\n:::\n"
        ":::{dropdown} More\n- y\n:::"
    )
    head = "# T [chapter 3](03_bulk_pretraining.ipynb), ledger 1 (a2020)\n"
    assert text == f"{head}**In short**\n\n- x ‹a› `t.csv`\n\n**More**\n\n- y\n"
    left = [line for path in build.numbered() for c in build.cleared(nbformat.read(path, as_version=4)).cells
            if c.cell_type == "markdown" for line in c.source.splitlines()
            if re.search(r"\{\w[\w:]*\}`|^:::|^\([\w-]+\)=|\.\./files/", line)]  # fmt: skip
    assert left == []


def test_book_shows_parameters_once_and_names_the_data_in_captions():
    notebook = _good()
    injected = _cell("code", "1234abcd", '# Parameters\nDATA = "embedded"\n', "injected-parameters")
    notebook.cells.insert(2, injected)
    made = {"files": ["fig2a.png", "fig2a.svg"], "datasets": ["DATA1-sim"], "protocol": "S", "profile": "quick"}
    cells = build.for_reading(copy.deepcopy(notebook), {"fig2a": made}).cells
    assert sum("DATA =" in c.source for c in cells) == 1
    captions = [c.metadata["mystnb"]["figure"]["caption"] for c in cells if "alt" in str(c.metadata)]
    assert captions == ["What. *Data: DATA1-sim (simulated) · protocol S · profile quick.*"]


def test_book_offers_the_files_of_each_chapter(run_folders, monkeypatch):
    monkeypatch.setattr(paths, "NOTEBOOKS", run_folders)
    # The committed picture of what was found is described by a chapter that is not here.
    monkeypatch.setattr(build.opening, "drawing", lambda *_: None)
    nbformat.write(_good(), run_folders / "05_shape.ipynb")
    root, figures = paths.run_dir("embedded", "smoke"), paths.figures_dir("embedded", "smoke")
    for folder in (root / "notebooks", root / "manifest", figures):
        folder.mkdir(parents=True)
    nbformat.write(_good(), root / "notebooks" / "05_shape.ipynb")
    made = {"datasets": ["DATA1-sim"], "protocol": "S", "profile": "smoke"}
    outputs = {
        "table3": made | {"files": ["table3.csv"], "caption": "P(sensitive) at *0.5*"},
        "fig2a": made | {"files": ["fig2a.csv", "fig2a.png"], "caption": ""},
    }
    (root / "manifest" / "05_shape.json").write_text(json.dumps(outputs))
    for file in ("table3.csv", "fig2a.csv", "fig2a.png", "other.csv"):
        (figures / file).write_text(file)
    book = build.assemble("embedded", "smoke")
    last = nbformat.read(book / "notebooks" / "05_shape.ipynb", as_version=4).cells[-1].source
    assert last.startswith("## Files of this chapter\n\nWhat this notebook wrote to `figures/embedded-smoke/`")
    assert last.splitlines()[-4:] == [
        ":::{dropdown} 3 files, to download",
        r"- P(sensitive) at \*0.5\*: [table3.csv](../files/table3.csv)",
        "- fig2a: [fig2a.csv](../files/fig2a.csv), [fig2a.png](../files/fig2a.png)",
        ":::",
    ]
    assert sorted(p.name for p in (book / "files").iterdir()) == ["fig2a.csv", "fig2a.png", "table3.csv"]
    assert "numbered: true" in (book / "_toc.yml").read_text()
    # Beside a chapter that has not run this one would be numbered otherwise than it is cited.
    nbformat.write(_good(), run_folders / "03_other.ipynb")
    assert "numbered" not in (build.assemble("embedded", "smoke") / "_toc.yml").read_text()


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ('run.table(frame, "table3", caption="x")', "table3"),
        ('a = 1\nrun.table(frame.assign(b=2), "few", caption="x").style.hide(axis="index")', "few"),
        ('run.table(frame, "few", caption="x")\nframe.head()', ""),
        ('shown = run.table(frame, "few", caption="x")', ""),
        ("%matplotlib inline", ""),
        ("", ""),
    ],
)
def test_the_table_that_a_cell_ends_in_is_known(source, name):
    assert build._shown_table(source) == name


def test_a_shown_table_gets_its_caption_and_its_file():
    notebook = _good()
    page = nbformat.v4.new_output("execute_result", data={"text/html": '<table border="1"><tr></tr></table>'})
    notebook.cells[3] = _cell("code", "shown", 'run.table(frame, "few", caption="x")')
    notebook.cells[3].outputs = [page]
    made = {"files": ["few.csv"], "datasets": [], "protocol": "", "profile": "quick", "caption": "A < B"}
    shown = build.for_reading(notebook, {"few": made}).cells[3].outputs[0]["data"]["text/html"]
    caption = "<caption>A &lt; B <code>few.csv</code></caption>"
    assert shown == f'<table border="1">{caption}<tr></tr></table>'


def test_chapters_are_cited_by_number_and_absent_ones_are_no_links():
    text = build._substitute(
        "See {ref}`nb-01`, {ref}`nb-13`.\n{ref}`nb-01` {{RUN}} {ref}`nb-01`", {"01"}, "embedded", "quick"
    )
    link = "{ref}`%s 1 <nb-01>`"
    assert text == f"See {link % 'chapter'}, chapter 13.\n{link % 'Chapter'} embedded-quick {link % 'chapter'}"
    assert build._substitute("{ref}`nb-02`", set(), "embedded", "quick") == "Chapter 2"


@pytest.mark.slow
def test_run_renames_on_success_and_explains_a_failure(tmp_path, capsys):
    good = nbformat.v4.new_notebook(
        cells=[_cell("code", "p", "A = 1", "parameters"), _cell("code", "u", "assert A == 2")]
    )
    bad = nbformat.v4.new_notebook(cells=[_cell("code", "z", "1 / 0")])
    for name, notebook in (("good", good), ("bad", bad)):
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    target = tmp_path / "run" / "notebooks"
    assert build.run(tmp_path / "good.ipynb", target / "good.ipynb", {"A": 2}) == 0
    assert build.run(tmp_path / "bad.ipynb", target / "bad.ipynb", {}) == 1
    assert sorted(p.name for p in target.iterdir()) == ["bad.part.ipynb", "good.ipynb"]
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said and "bad.part.ipynb" in said


def test_a_second_run_waits_for_the_lock(tmp_path):
    lock = [sys.executable, str(paths.BOOK / "lock.py"), str(tmp_path / "lock")]
    write = "import time, sys; open(sys.argv[1], 'a').write('a'); time.sleep(1.5); open(sys.argv[1], 'a').write('b')"
    command = [*lock, sys.executable, "-c", write, str(tmp_path / "log")]
    first = subprocess.Popen(command)
    while not (tmp_path / "log").exists():
        time.sleep(0.02)
    second = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert first.wait() == 0 and second.returncode == 0
    assert (tmp_path / "log").read_text() == "abab"
    assert re.search(rf"process {first.pid}\) is at work", second.stderr)


def test_report_and_notebooks_import_neither_torch_nor_scanpy():
    code = "import sys, book.build, atsdp_utils.reporting.plots; print({'torch', 'scanpy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"

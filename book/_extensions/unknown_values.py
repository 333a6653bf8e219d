"""A value that a run could not compute, such as an interval over one seed, is a word in the text and no "nan"."""

import re

from docutils import nodes


def setup(app):
    """Read a page once its glued values stand in it."""
    app.connect("doctree-resolved", lambda app, doctree, page: name_unknown(doctree))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def name_unknown(tree: nodes.Element) -> None:
    """Put "unknown" in the place of every glued value that is no number."""
    for value in tree.findall(lambda node: isinstance(node, nodes.inline) and "pasted-text" in node["classes"]):
        if re.fullmatch(r"[+-]?nan%?", value.astext()):
            value[:] = [nodes.Text("unknown")]

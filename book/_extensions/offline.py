"""Keep the book free of other hosts: Jupyter Book always loads sphinx-thebe, with such an address in it."""


def setup(app):
    """Disconnect sphinx-thebe once every extension is set up."""
    app.connect("config-inited", disconnect_thebe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def disconnect_thebe(app, config):
    """Drop its event handlers and its style sheet; nothing here uses live code cells."""
    app.registry.css_files[:] = [x for x in app.registry.css_files if "sphinx-thebe" not in x[0]]
    for listeners in app.events.listeners.values():
        listeners[:] = [x for x in listeners if not x.handler.__module__.startswith("sphinx_thebe")]

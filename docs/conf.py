"""Settings of the documentation, which `make docs` builds; a warning, such as a broken link, is an error there."""

import sys
from pathlib import Path

import click
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

project = "spikebridge"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["results/*-20*"]  # tables as the commands write them
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "spikebridge"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
default_role = "literal"  # docstrings write `name` for code
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_typehints_format = "short"
autodoc_use_type_comments = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Source", "notes_style"), ("Differs", "notes_style")]


class Verbs(SphinxDirective):
    """The `--help` of every verb, as the program prints it."""

    def run(self) -> list[nodes.Node]:
        """One section a verb; verbs of a group, such as `recipes copy`, have one each."""
        from spikebridge.cli import main

        context = click.Context(main, info_name="spikebridge", max_content_width=100, terminal_width=100)
        return list(_sections(main, context))


def _sections(group: click.Group, context: click.Context) -> list[nodes.section]:
    found = []
    for name in sorted(group.commands):
        command = group.commands[name]
        inner = click.Context(command, info_name=name, parent=context, terminal_width=100)
        if isinstance(command, click.Group):
            found += _sections(command, inner)
            continue
        title = inner.command_path.removeprefix("spikebridge ")
        section = nodes.section(ids=[title.replace(" ", "-")])
        section += nodes.title(text=title)
        section += nodes.literal_block(text=command.get_help(inner), language="text")
        found.append(section)
    return found


def setup(app: object) -> None:
    """Called by Sphinx."""
    app.add_directive("verbs", Verbs)  # type: ignore[attr-defined]

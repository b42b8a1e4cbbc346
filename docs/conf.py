"""Build of the documentation site: MyST pages and the API reference from docstrings. `make docs` runs it offline."""

import re
import sys
import warnings
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
warnings.filterwarnings("ignore")

project = "Vitrail"
copyright = "Vitrail contributors, Apache-2.0"
release = metadata.version("vitrail")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns: list[str] = []
html_theme = "furo"
html_title = f"Vitrail {release}"
html_show_sourcelink = False
html_copy_source = False
myst_enable_extensions = ["deflist", "attrs_inline"]
myst_heading_anchors = 3
default_role = "code"  # one backtick is code, as in Markdown
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Shape", "notes_style"), ("Formula", "notes_style")]
autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": False}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
suppress_warnings = ["myst.xref_missing"]  # files outside of docs; tests/house/test_documents.py checks all links

_CODE = re.compile(r"(`[^`]*`)")
_TABLE = re.compile(r"^\s*\|.*\|\s*$")


def plain_to_rst(app, what, name, obj, options, lines):
    """Turn a docstring, which is Markdown of few kinds, into reStructuredText.

    Tables and indented drawings become literal blocks; outside of code, characters that would be markup are escaped.
    """
    found: list[str] = []
    literal = example = False
    for line in lines:
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        if _TABLE.match(line):
            indent = re.match(r"\s*", line)[0]
            found += [] if literal else ["", f"{indent}::", ""]
            literal = True
            found.append(f"    {line}")
            continue
        if literal:
            found.append("")
            literal = False
        found.append(line if example else _escaped(line))
    lines[:] = found


def _escaped(line: str) -> str:
    parts = _CODE.split(line)
    if line.count("`") % 2:  # code that goes on in the next line
        return re.sub(r"([*|`])", r"\\\1", line)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"([*|])", r"\\\1", parts[i])
        parts[i] = re.sub(r"(\w)_(?=\W|$)", r"\1\\_", parts[i])
    return "".join(parts)


def add_more(app, docname, source):
    """List the pages that no table of contents names, in place of the marker of the index."""
    if docname != "index":
        return
    folder = Path(__file__).parent
    pages = [page.relative_to(folder).with_suffix("").as_posix() for page in sorted(folder.glob("*.md"))]
    more = [page for page in pages if page != "index" and not re.search(rf"^{page}$", source[0], re.MULTILINE)]
    entries = "\n".join(more)
    listed = f"```{{toctree}}\n:caption: More\n:maxdepth: 1\n\n{entries}\n```" if more else ""
    source[0] = source[0].replace("<!-- more -->", listed)


_SIGNATURE = re.compile(r"<dl>\s*(?:<dd>(?:(?!</?d[ld]>).)*</dd>\s*)+</dl>", re.DOTALL)


def _blocks(found):
    text = found[0].replace("<dd>", '<span style="display: block; padding-left: 2em">').replace("</dd>", "</span>")
    return text.replace("<dl>", "<span>").replace("</dl>", "</span>")


def make_accessible(app, pagename, templatename, context, doctree):
    """Give headings of contents their level, let the keyboard reach code and tables that scroll, and mend signatures.

    Long signatures have a parameter a line in a `dl` without terms, which is no list of definitions.
    """
    for part in ("body", "furo_navigation_tree"):
        if isinstance(context.get(part), str):
            text = context[part].replace('role="heading"', 'role="heading" aria-level="2"')
            text = _SIGNATURE.sub(_blocks, text)
            context[part] = re.sub(r'<(pre|div class="table-wrapper[^"]*")>', r'<\1 tabindex="0">', text)


def setup(app):
    """Register the conversion of docstrings, after napoleon has read their sections, and the table of other pages."""
    app.connect("autodoc-process-docstring", plain_to_rst, priority=400)
    app.connect("source-read", add_more)
    app.connect("html-page-context", make_accessible, priority=900)  # after the theme's

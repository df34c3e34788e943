"""Equations as MathML, made when the site is built: no script and no font to fetch in the browser.

An equation that cannot be converted, or only in part, is a warning, so it stops a build that allows
none.
"""

import re
from html import escape

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging

logger = logging.getLogger(__name__)


ENVIRONMENT = re.compile(r"\\(begin|end)\{(align|gather|equation)(ed)?\}")
LEFT = re.compile(r"\\\w|&(?!#?\w+;)")  # of LaTeX that was taken for text


def markup(translator, node, display):
    """MathML of a node, or its LaTeX where that is not understood."""
    latex = ENVIRONMENT.sub(r"\\\1{\2*}", node.astext())
    try:
        result = convert(latex, display=display)
    except Exception as error:  # latex2mathml has many kinds
        logger.warning("cannot convert %r to MathML: %r", latex, error, location=node)
        return f"<code>{escape(latex)}</code>"
    if LEFT.search(re.sub(r"<[^>]*>", "", result)):
        logger.warning("%r is converted to MathML only in part", latex, location=node)
    return result


def visit_inline(translator, node):
    translator.body.append(markup(translator, node, "inline"))
    raise nodes.SkipNode


def visit_block(translator, node):
    number = ""
    if node.get("number"):
        number = f'<span class="eqno">({node["number"]})</span>'
    opening = translator.starttag(node, "div", CLASS="math-block")
    translator.body.append(f"{opening}{number}{markup(translator, node, 'block')}</div>\n")
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}

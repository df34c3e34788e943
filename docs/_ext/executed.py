"""Python of the pages is run: what is fenced as Python cannot be shown without being executed.

The doctest builder runs blocks that are marked as tests. This marks every ``python`` block of a
page; those that other extensions run themselves (the gallery, plots) or take from the package, and
doctests, are left alone.
"""

from docutils import nodes
from sphinx.transforms import SphinxTransform


class RunPython(SphinxTransform):
    """Mark Python blocks as code to be run, all blocks of a page in one namespace."""

    default_priority = 400

    def apply(self):
        if self.env.docname.startswith(("gallery/", "reference/generated/")):
            return
        for block in self.document.findall(nodes.literal_block):
            is_python = block.get("language") == "python" and "testnodetype" not in block
            if is_python and not {"run-by-plot", "not-to-be-run"} & set(block["classes"]):
                is_doctest = block.astext().lstrip().startswith(">>>")
                block["testnodetype"] = "doctest" if is_doctest else "testcode"
                block["groups"] = ["default"]


def setup(app):
    app.add_transform(RunPython)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

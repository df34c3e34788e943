"""The plot of the page: a Bokeh figure without data, which the page's script fills."""

from typing import Any

import numpy as np

from ptsne.report.packing import Array

BLUE = 0x0072B2FF
INK = "#1b1f24"
TEXT: dict[str, Any] = {
    "text_font_style": "bold",
    "text_font": {"value": "system-ui, sans-serif"},
    "background_fill_color": "white",
    "background_fill_alpha": 0.75,
    "border_radius": 4,
    "padding": 2,
}
MIDDLE: dict[str, Any] = {
    "text_align": "center",
    "text_baseline": "middle",
    "text_font_size": "14px",
}
BESIDE: dict[str, Any] = {"x_offset": 10, "y_offset": -6, "text_font_size": "15px"}


def bokeh_code() -> list[str]:
    """BokehJS with its webgl renderer, ready to stand inside script elements.

    Returns
    -------
    list of str
        Scripts.

    Raises
    ------
    ImportError
        If Bokeh is not installed.
    """
    try:
        from bokeh.resources import Resources  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ImportError("the page needs Bokeh: pip install 'ptsne[report]'") from error
    resources = Resources(mode="inline", components=["bokeh", "bokeh-gl"], log_level="warn")
    return [code.replace("</script", "<\\/script") for code in resources.js_raw]


def plot_item(Y: Array) -> Any:
    """The plot as JSON.

    Parameters
    ----------
    Y : ndarray of shape (N, K)
        Places; two corners stand for them, so that the plot knows its range.

    Returns
    -------
    dict
        What ``Bokeh.embed.embed_item`` takes. The sources "points" (x, y, color), "names" and
        "marks" (x, y, name) are the script's to fill.
    """
    from bokeh.embed import json_item  # noqa: PLC0415 - optional
    from bokeh.models import ColumnDataSource  # noqa: PLC0415

    x, y = Y[:, 0], Y[:, min(1, Y.shape[1] - 1)]
    colour = np.full(2, BLUE, dtype=np.uint32)
    corners: dict[str, Any] = {"x": [x.min(), x.max()], "y": [y.min(), y.max()], "color": colour}
    nothing: dict[str, Any] = {"x": [], "y": [], "name": []}
    points, names, marks = (
        ColumnDataSource(data, name=name)
        for data, name in ((corners, "points"), (nothing, "names"), (nothing, "marks"))
    )
    plot = _figure()
    plot.scatter("x", "y", source=points, fill_color="color", line_color=None, name="dots")
    plot.text("x", "y", "name", source=names, **TEXT, **MIDDLE)
    ring: dict[str, Any] = {"fill_color": None, "line_color": INK, "line_width": 2}
    plot.scatter("x", "y", source=marks, size=15, **ring)
    plot.text("x", "y", "name", source=marks, **TEXT, **BESIDE)
    return json_item(plot)


def _figure() -> Any:
    """A bare figure whose tools choose no points: the script finds them itself."""
    from bokeh.plotting import figure  # noqa: PLC0415 - optional

    plot = figure(
        name="map",
        match_aspect=True,
        output_backend="webgl",
        sizing_mode="stretch_both",
        tools="pan,wheel_zoom,lasso_select,tap",
        active_scroll="wheel_zoom",
        toolbar_location=None,
        outline_line_color=None,
        min_border=8,
    )
    plot.axis.visible = False
    plot.grid.visible = False
    for tool in plot.toolbar.tools:
        if hasattr(tool, "renderers"):
            tool.renderers = []
    return plot

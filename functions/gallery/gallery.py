"""A gallery in three functions, which the workflow `gallery` of functions.yaml puts together.

curl -d '{"title":"Landscapes"}' -H 'Prefer: wait=60' 127.0.0.1:8080/workflows/gallery > gallery.html
"""

from html import escape
from pathlib import Path

PICTURES = Path(__file__).with_name("pictures")
PAGE = """<!doctype html>
<meta charset="utf-8">
<title>{title}</title>
<style>
  body {{ font-family: system-ui, sans-serif; margin: 2rem; background: #f4f2ee; color: #222 }}
  main {{ display: flex; flex-wrap: wrap; gap: 1rem }}
  figure {{ margin: 0; padding: .6rem; background: #fff; box-shadow: 0 1px 4px #0003 }}
  figcaption {{ padding-top: .4rem; font-size: .85rem }}
</style>
<h1>{title}</h1>
<main>
{figures}
</main>
"""
FIGURE = """\
<figure>
  <img alt="{name}" src="data:{content_type};base64,{base64}">
  <figcaption>{name}</figcaption>
</figure>"""


def names(event, context):
    """The names of the pictures that there are, in order."""
    return sorted(picture.name for picture in PICTURES.glob("*.jpg"))


def read(event, context):
    """The picture of a name, as a body of type image/jpeg."""
    name = event.decode() if isinstance(event, bytes) else event
    picture = PICTURES / str(name)
    if picture.parent != PICTURES or not picture.is_file():
        return {"error": f"there is no picture {name!r}"}, 404, {}
    return picture.read_bytes(), 200, {"content-type": "image/jpeg"}


def page(event, context):
    """A page with {"title", "names", "thumbnails"}; what a workflow knows of a picture is its type and its base64."""
    figures = [
        FIGURE.format(name=escape(name), **thumbnail)
        for name, thumbnail in zip(event["names"], event["thumbnails"], strict=True)
        if thumbnail is not None
    ]
    title = escape(str(event.get("title") or "Gallery"))
    return (
        PAGE.format(title=title, figures="\n".join(figures)),
        200,
        {"content-type": "text/html; charset=utf-8"},
    )

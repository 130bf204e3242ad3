"""Makes pictures smaller.

curl --data-binary @in.jpg -H 'content-type: image/jpeg' -o out.jpg '127.0.0.1:8080/invoke/thumbnail?width=64'
"""

import io

from PIL import Image, ImageOps, UnidentifiedImageError

WIDTH = 128
WIDEST = 2048
MOST_PIXELS = 20_000_000
"""A small file can unpack to more than memory holds; larger pictures are refused before they are unpacked."""


def thumbnail(event, context):
    """The picture in the body, at most ?width= pixels wide: JPEG stays JPEG, all else becomes PNG."""
    if not isinstance(event, bytes):
        return _refuse("send a picture as the body, with its content type, like image/png")
    try:
        width = int(context.query.get("width", WIDTH))
    except ValueError:
        width = 0
    if not 1 <= width <= WIDEST:
        return _refuse(f"width must be a whole number from 1 to {WIDEST}")
    try:
        picture = Image.open(io.BytesIO(event))
        if picture.width * picture.height > MOST_PIXELS:
            return _refuse(f"the picture has more than {MOST_PIXELS} pixels")
        return _smaller(picture, width)
    except UnidentifiedImageError:
        return _refuse("the body is no picture of a known format")
    except (Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        return _refuse(f"the body is a picture that cannot be read: {error}")


def _smaller(picture, width):
    is_jpeg = picture.format == "JPEG"
    ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode not in ("RGB", "L", "RGBA"):
        picture = picture.convert("RGB" if is_jpeg else "RGBA")
    if picture.width > width:
        height = max(1, round(picture.height * width / picture.width))
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    output = io.BytesIO()
    picture.save(output, "JPEG" if is_jpeg else "PNG")
    return output.getvalue(), 200, {"content-type": "image/jpeg" if is_jpeg else "image/png"}


def _refuse(reason):
    return {"error": reason}, 400, {}

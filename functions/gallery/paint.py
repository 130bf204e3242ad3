"""Paints the pictures of the gallery: landscapes, each from a seed. Needs Pillow; the functions do not run it.

python functions/gallery/paint.py
"""

import random
from itertools import pairwise
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter

SIZE = WIDTH, HEIGHT = 640, 426


def sky(top, bottom, horizon=HEIGHT):
    """A gradient down to the horizon."""
    column = Image.new("RGB", (1, HEIGHT))
    for y in range(HEIGHT):
        column.putpixel((0, y), mixed(top, bottom, min(1.0, y / horizon)))
    return column.resize(SIZE)


def mixed(one, other, share):
    """A colour between two."""
    return tuple(round(a + (b - a) * share) for a, b in zip(one, other, strict=True))


def glow(picture, place, radius, colour, strength=0.9):
    """Light around a point, added to what is there."""
    light = Image.new("RGB", SIZE)
    x, y = place
    draw = ImageDraw.Draw(light)
    for step in range(24, 0, -1):
        far = radius * step / 24
        draw.ellipse(
            (x - far, y - far, x + far, y + far), mixed((0, 0, 0), colour, strength * (1 - step / 25) ** 2)
        )
    return ImageChops.add(picture, light.filter(ImageFilter.GaussianBlur(radius / 10)))


def ridge(chance, height, roughness):
    """A line of hills by midpoint displacement: one height for each column."""
    points = [height + chance.uniform(-roughness, roughness) for _ in range(3)]
    while len(points) <= WIDTH:
        between = [(a + b) / 2 + chance.uniform(-roughness, roughness) / 2 for a, b in pairwise(points)]
        points = [point for pair in zip(points[:-1], between, strict=True) for point in pair] + points[-1:]
        roughness *= 0.55
    return [points[round(x * (len(points) - 1) / WIDTH)] for x in range(WIDTH + 1)]


def hills(picture, chance, base, roughness, colour, foot=None):
    """Fill what is below a ridge, paler towards its foot."""
    mask = Image.new("L", SIZE)
    line = ridge(chance, base, roughness)
    ImageDraw.Draw(mask).polygon([*enumerate(line), (WIDTH, HEIGHT), (0, HEIGHT)], fill=255)
    fill = sky(colour, foot or colour)
    picture.paste(fill, mask=mask)
    return line


def trees(picture, chance, line, colour, count, tall):
    """Firs along a ridge."""
    draw = ImageDraw.Draw(picture)
    for _ in range(count):
        x = chance.randrange(WIDTH)
        high = tall * chance.uniform(0.5, 1.0)
        foot = line[x] + high * 0.3
        for part in range(4):
            half, top = high * 0.09 * (part + 1), foot - high + part * high * 0.2
            draw.polygon(
                [(x, top), (x - half, top + high * 0.34), (x + half, top + high * 0.34)], fill=colour
            )


def stars(picture, chance, count, below):
    """Points of light in the upper part."""
    for _ in range(count):
        light = chance.randint(90, 255)
        picture.putpixel(
            (chance.randrange(WIDTH), chance.randrange(below)), (light, light, min(255, light + 20))
        )


def mirrored(picture, chance, horizon):
    """Water below the horizon that shows what is above it, in waves."""
    above = picture.crop((0, max(0, 2 * horizon - HEIGHT), WIDTH, horizon)).transpose(
        Image.Transpose.FLIP_TOP_BOTTOM
    )
    above = Image.blend(above, Image.new("RGB", above.size, (8, 18, 34)), 0.3)
    for y in range(above.height):
        shift = round(chance.uniform(-1, 1) * (1 + y / 22))
        row = above.crop((0, y, WIDTH, y + 1))
        picture.paste(ImageChops.offset(row, shift, 0), (0, horizon + y))
    return picture


def sunset(chance):
    """The sun goes down behind an island."""
    picture = glow(sky((38, 44, 92), (252, 148, 66), 270), (430, 236), 190, (255, 190, 90))
    ImageDraw.Draw(picture).ellipse((408, 212, 452, 256), fill=(255, 240, 190))
    hills(picture, chance, 250, 22, (88, 50, 76), (70, 40, 70))
    hills(picture, chance, 268, 12, (44, 28, 52), (40, 26, 48))
    return mirrored(picture, chance, 274)


def mountains(chance):
    """Rows of blue mountains."""
    picture = glow(sky((104, 158, 214), (242, 222, 204), 300), (180, 120), 150, (255, 230, 180), 0.6)
    for index, base in enumerate((190, 232, 278, 330, 384)):
        share = index / 4
        hills(
            picture,
            chance,
            base,
            70 - 11 * index,
            mixed((138, 164, 196), (18, 42, 56), share),
            mixed((226, 222, 222), (30, 60, 66), share),
        )
    return picture


def night(chance):
    """Northern lights above firs."""
    picture = sky((6, 8, 30), (22, 48, 70), 360)
    stars(picture, chance, 420, 300)
    lights = Image.new("RGB", SIZE)
    draw = ImageDraw.Draw(lights)
    line = ridge(chance, 170, 60)
    for x in range(WIDTH):
        high = 70 + 40 * chance.random()
        for part in range(12):
            y = line[x] - high * part / 12
            draw.line((x, y, x, y - high / 12), fill=mixed((40, 190, 120), (90, 30, 120), part / 11))
    picture = ImageChops.add(picture, lights.filter(ImageFilter.GaussianBlur(9)))
    line = hills(picture, chance, 352, 34, (8, 18, 24), (4, 8, 12))
    trees(picture, chance, line, (3, 8, 12), 150, 66)
    return picture


def forest(chance):
    """Firs in fog, row behind row."""
    picture = sky((206, 216, 214), (232, 232, 222))
    for index in range(5):
        colour = mixed((172, 190, 186), (24, 48, 42), index / 4)
        line = hills(
            picture, chance, 190 + 52 * index, 30, colour, mixed(colour, (226, 230, 224), 0.75 - 0.15 * index)
        )
        trees(picture, chance, line, colour, 90 - 8 * index, 70 + 16 * index)
        picture = picture.filter(ImageFilter.GaussianBlur(1.4 - 0.3 * index))
    return picture


def dunes(chance):
    """Sand in the evening, with shadows."""
    picture = glow(sky((70, 120, 178), (250, 206, 160), 220), (520, 150), 120, (255, 220, 160))
    for index, base in enumerate((214, 258, 310, 372)):
        light = mixed((238, 186, 128), (206, 120, 62), index / 3)
        line = hills(picture, chance, base, 46 - 6 * index, light, mixed(light, (120, 60, 40), 0.35))
        draw = ImageDraw.Draw(picture, "RGBA")
        for x in range(WIDTH):
            slope = line[min(WIDTH, x + 6)] - line[max(0, x - 6)]
            if slope > 0:
                draw.line(
                    (x, line[x], x - 16, line[x] + 24 + 8 * slope),
                    fill=(90, 40, 40, min(90, round(12 * slope))),
                )
    return picture.filter(ImageFilter.SMOOTH_MORE)


def city(chance):
    """Towers by a river, at night."""
    picture = glow(sky((16, 18, 52), (150, 84, 110), 300), (320, 300), 260, (200, 110, 90), 0.5)
    stars(picture, chance, 120, 140)
    draw = ImageDraw.Draw(picture)
    for row, colour in enumerate(((58, 46, 84), (34, 28, 58), (18, 16, 36))):
        x = -10
        while x < WIDTH:
            wide, high = chance.randint(26, 58), chance.randint(70, 200) - 24 * row
            top = 300 - high
            draw.rectangle((x, top, x + wide, 300), fill=colour)
            for wy in range(top + 6, 296, 9):
                for wx in range(x + 4, x + wide - 4, 7):
                    if chance.random() < 0.28:
                        draw.rectangle(
                            (wx, wy, wx + 2, wy + 3), fill=chance.choice([(255, 214, 130), (255, 236, 190)])
                        )
            x += wide + chance.randint(-6, 10)
    return mirrored(picture, chance, 300)


PICTURES = {
    "sunset": sunset,
    "mountains": mountains,
    "northern-lights": night,
    "forest": forest,
    "dunes": dunes,
    "city": city,
}


def main():
    """Paint all of them into the folder `pictures`."""
    for seed, (name, paint) in enumerate(PICTURES.items()):
        picture = paint(random.Random(seed))  # noqa: S311 - nobody has to be kept from guessing it
        grain = Image.effect_noise(SIZE, 14).convert("RGB")
        picture = Image.blend(picture, ImageChops.overlay(picture, grain), 0.35)
        picture.save(Path(__file__).with_name("pictures") / f"{name}.jpg", quality=84, optimize=True)


if __name__ == "__main__":
    main()

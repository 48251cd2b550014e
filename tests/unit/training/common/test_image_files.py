"""One way to read images: transparency, depth, palettes, orientation, size; what is no still image is named."""

import io
import struct
import warnings

import numpy as np
import pytest
from PIL import Image

from training.common import image_files
from training.common.image_files import image_size, open_image, open_mask

SIZE = (16, 12)
WHITE, GREEN, RED = (255, 255, 255), (0, 255, 0), (255, 0, 0)


def left_half(value=255, mode="L"):
    """A channel that is ``value`` on its left half and 0 on its right."""
    channel = Image.new(mode, SIZE)
    channel.paste(value, (0, 0, SIZE[0] // 2, SIZE[1]))
    return channel


def saved(tmp_path, image, name="x.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def rgba(visible, hidden):
    """Visible on the left, transparent on the right with another colour below."""
    image = Image.new("RGB", SIZE, hidden)
    image.paste(visible, (0, 0, SIZE[0] // 2, SIZE[1]))
    image.putalpha(left_half())
    return image


def corners(image):
    return image.getpixel((0, 0)), image.getpixel((SIZE[0] - 1, 0))


@pytest.mark.parametrize("hidden", [(0, 0, 0), GREEN, WHITE])
@pytest.mark.parametrize("ending", ["png", "webp", "tiff"])
def test_transparent_parts_are_white_whatever_colour_lies_under_them(tmp_path, hidden, ending):
    path = saved(tmp_path, rgba(RED, hidden), f"x.{ending}", **({"lossless": True} if ending == "webp" else {}))
    assert corners(open_image(path)) == (RED, WHITE)


def test_half_transparent_is_half_white(tmp_path):
    assert open_image(saved(tmp_path, Image.new("RGBA", SIZE, (255, 0, 0, 51)))).getpixel((0, 0)) == (255, 204, 204)


def test_other_kinds_of_transparency(tmp_path):
    grey = Image.merge("LA", (left_half(100), left_half()))
    assert corners(open_image(saved(tmp_path, grey))) == ((100, 100, 100), WHITE)
    palette = Image.new("P", SIZE, 1)
    palette.putpalette([*RED, *GREEN] + [0] * 762)
    palette.paste(0, (0, 0, 8, 12))
    assert corners(open_image(saved(tmp_path, palette))) == (RED, GREEN)
    assert corners(open_image(saved(tmp_path, palette, "p.png", transparency=1))) == (RED, WHITE)
    keyed = Image.new("RGB", SIZE, GREEN)
    keyed.paste(RED, (0, 0, 8, 12))
    assert corners(open_image(saved(tmp_path, keyed, "k.png", transparency=GREEN))) == (RED, WHITE)


@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_sixteen_bits_are_scaled(tmp_path, ending):
    values = np.linspace(0, 65535, SIZE[0] * SIZE[1]).reshape(SIZE[::-1]).astype(np.uint16)
    image = open_image(saved(tmp_path, Image.fromarray(values), f"x.{ending}"))
    assert np.array_equal(np.asarray(image)[..., 0], np.round(values / 257).astype(np.uint8))


def test_numbers_that_are_no_pixels_are_named(tmp_path):
    path = saved(tmp_path, Image.fromarray(np.full(SIZE, 0.5, np.float32)), "x.tiff")
    with pytest.raises(ValueError, match="expected 8 or 16 bits per channel, got numbers from 0.5 to 0.5"):
        open_image(path)


def test_cmyk_and_one_bit(tmp_path):
    assert open_image(saved(tmp_path, Image.new("CMYK", SIZE, (0, 0, 0, 0)), "x.tiff")).getpixel((0, 0)) == WHITE
    assert open_mask(saved(tmp_path, left_half(1, "1"))).sum() == 8 * 12


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (rgba(WHITE, WHITE), "white, its background erased"),
        (rgba((0, 0, 0), (0, 0, 0)), "black, its background erased"),
        (left_half(), "white on black"),
        (left_half().convert("RGBA"), "white on black, opaque"),
        (Image.merge("LA", (Image.new("L", SIZE, 255), left_half())), "grey and alpha"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mask_is_white_or_opaque_where_the_subject_is(tmp_path, image, why):
    mask = open_mask(saved(tmp_path, image))
    assert mask[:, :8].all() and not mask[:, 8:].any(), why


def test_a_drawn_mask_with_a_transparent_rim_is_what_is_white_of_it(tmp_path):
    image = left_half().convert("RGBA")
    rim = Image.new("L", SIZE, 255)
    rim.paste(0, (0, 0, SIZE[0], 2))
    image.putalpha(rim)
    assert open_mask(saved(tmp_path, image)).sum() == 8 * 10


def test_masks_of_sixteen_bits_and_empty_ones(tmp_path):
    values = np.zeros(SIZE[::-1], np.uint16)
    values[:, :8] = 40000
    assert open_mask(saved(tmp_path, Image.fromarray(values))).sum() == 8 * 12
    for image, hint in (
        (Image.new("L", SIZE), ""),
        (left_half(1), "Its brightest pixel is 1 of 255; scale it up"),
        (Image.new("RGBA", SIZE), ""),
    ):
        with pytest.raises(ValueError, match="the mask is empty; expected white where the subject is.*" + hint):
            open_mask(saved(tmp_path, image))


@pytest.mark.parametrize(
    ("orientation", "turned", "corner"),
    [(3, False, (-1, -1)), (6, True, (-1, 0)), (7, True, (-1, -1)), (8, True, (0, -1))],
)
def test_images_are_upright_and_their_size_is_that_of_the_upright_one(tmp_path, orientation, turned, corner):
    """`corner` is where the stored first pixel stands in the upright image: x and y, 0 or the last."""
    image = Image.new("RGB", SIZE)
    image.putpixel((0, 0), RED)
    note = image.getexif()
    note[0x0112] = orientation
    path = saved(tmp_path, image, exif=note)
    upright = open_image(path)
    assert upright.size == image_size(path) == (SIZE[::-1] if turned else SIZE)
    assert upright.getpixel(tuple(last % size for last, size in zip(corner, upright.size))) == RED


@pytest.mark.parametrize("tag", [0x0100, 0x011A])
def test_a_broken_note_beside_the_orientation_changes_nothing(tmp_path, tag):
    head = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 2)
    notes = head + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack(">HHI4s", tag, 2, 4, b"abc\0") + bytes(4)
    path = saved(tmp_path, Image.new("RGB", SIZE), "x.jpg", exif=notes)
    assert open_image(path).size == image_size(path) == SIZE[::-1]


def test_notes_that_cannot_be_read_say_nothing(tmp_path):
    path = saved(tmp_path, Image.new("RGB", SIZE), "x.webp", exif=b"Exif\0\0??\0*" + bytes(8))
    assert open_image(path).size == image_size(path) == SIZE


def broken(tmp_path):
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(whole, "PNG")
    frames = [Image.new("L", SIZE, value) for value in (0, 255)]
    files = {
        "truncated.png": whole.getvalue()[:900],
        "page.png": b"<!DOCTYPE html><html>",
        "empty.jpg": b"",
        "header.png": b"\x89PNG no picture",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        yield tmp_path / name, "not a whole picture"
    for name in ("x.gif", "x.webp", "x.png", "x.tiff"):
        yield saved(tmp_path, frames[0], name, save_all=True, append_images=frames[1:]), "got 2 frames"
    yield tmp_path, "not a whole picture"
    yield tmp_path / "absent.png", "not a whole picture"


def test_what_is_no_still_image_is_named(tmp_path):
    cases = list(broken(tmp_path))
    assert len(cases) == 10
    for path, expected in cases:
        for read in (open_image, open_mask):
            with pytest.raises(ValueError) as report:
                read(path)
            assert expected in str(report.value) and str(path) in str(report.value)


def test_an_image_too_large_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 80)  # PIL refuses twice as many
    with pytest.raises(ValueError, match="expected an image of at most 179 million pixels.*Scale it down"):
        open_image(saved(tmp_path, Image.new("L", SIZE)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # where PIL only warns
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_image(tmp_path / "x.png")
    monkeypatch.undo()
    assert image_files.LARGEST == 2 * Image.MAX_IMAGE_PIXELS


def test_a_telephones_second_view_is_no_animation(tmp_path):
    path = saved(
        tmp_path, Image.new("RGB", SIZE, RED), "x.mpo", save_all=True, append_images=[Image.new("RGB", SIZE, GREEN)]
    )
    red, _, blue = open_image(path).getpixel((0, 0))
    assert red > 240 and blue < 20

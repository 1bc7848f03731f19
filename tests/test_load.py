"""Whatever a picture file is like, an upright RGB uint8 array or one clear reason comes out."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image
from use_toys import encoded, png_claiming

from faceattr.images import load
from faceattr.images.jpeg import decode_jpeg
from faceattr.images.load import read_image, read_picture

GRADIENT = np.dstack([np.tile(np.arange(0, 240, 4, dtype=np.uint8), (40, 1))] * 3)  # (40, 60, 3)


def saved(tmp_path, image, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK", "YCbCr", "1", "LA", "RGBA"])
def test_every_mode_becomes_rgb_uint8(tmp_path, mode):
    image = Image.fromarray(GRADIENT)
    image = image.quantize(64) if mode == "P" else image.convert(mode)
    path = saved(tmp_path, image, "x.tif" if mode not in ("LA", "P") else "x.png")
    read = read_image(path)
    assert read.shape == (40, 60, 3) and read.dtype == np.uint8
    if mode != "1":
        assert np.abs(read.astype(int) - GRADIENT).max() < 12


def test_colours_keep_their_order(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (4, 4), (200, 10, 20)), "red.png")
    assert read_image(path)[0, 0].tolist() == [200, 10, 20]


def test_transparency_is_blended_over_white(tmp_path):
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (100, 0, 0, 255))
    read = read_image(saved(tmp_path, image, "x.png"))
    assert read[0].tolist() == [[255, 255, 255], [100, 0, 0]]


def test_a_palette_with_a_transparent_colour_is_blended_too(tmp_path):
    image = Image.new("P", (2, 2), 0)
    image.putpalette([9, 9, 9, 200, 0, 0])
    assert (read_image(saved(tmp_path, image, "x.gif", transparency=0)) == 255).all()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    deep = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    read = read_image(saved(tmp_path, Image.fromarray(deep), "deep.png"))
    assert read[..., 0].ravel().tolist() == list(range(256))


def test_a_dark_sixteen_bit_picture_stays_dark(tmp_path):
    dark = np.full((8, 8), 200, np.uint16)
    assert read_image(saved(tmp_path, Image.fromarray(dark), "dark.png")).max() <= 1


def test_floating_point_pixels_between_0_and_1_are_scaled(tmp_path):
    grey = Image.fromarray(np.full((8, 8), 0.5, np.float32))
    assert read_image(saved(tmp_path, grey, "x.tif"))[0, 0, 0] in (127, 128)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture_upright(tmp_path, orientation):
    upright = np.zeros((30, 50, 3), np.uint8)
    upright[:15, :25] = 255
    stored = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: np.transpose(a, (1, 0, 2)),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(np.transpose(a, (1, 0, 2)), 2),
        8: lambda a: np.rot90(a, 3),
    }[orientation](upright)
    image = Image.fromarray(np.ascontiguousarray(stored))
    path = saved(tmp_path, image, "x.png", exif=exif_of(orientation))
    picture = read_picture(path)
    assert (picture.image == upright).all()
    assert picture.full_size == (30, 50)


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = saved(tmp_path, frames[0], "x.gif", save_all=True, append_images=frames[1:])
    assert read_image(path)[0, 0].tolist() == [255, 0, 0]


def test_a_large_jpeg_is_decoded_smaller_but_not_below_what_is_asked_for(tmp_path):
    image = Image.effect_noise((1600, 1200), 40).convert("RGB")
    picture = read_picture(saved(tmp_path, image, "x.jpg", exif=exif_of(6)), at_least=350)
    assert picture.image.shape == (400, 300, 3)
    assert picture.full_size == (1600, 1200) and picture.scale == 4


def jpeg(size=(333, 217), mode="RGB", **options):
    """A noisy picture in colour as a JPEG."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)
    image = Image.fromarray(noise).resize(size).convert(mode)
    return encoded(image, "JPEG", **options)


JPEGS = {
    "plain": {},
    "progressive": {"progressive": True},
    "without subsampling": {"subsampling": 0},
    "grey": {"mode": "L"},
    "four inks": {"mode": "CMYK"},
    "one pixel wide": {"size": (1, 400)},
    **{f"orientation {n}": {"exif": exif_of(n)} for n in range(1, 9)},
}


@pytest.mark.parametrize("at_least", [None, 150, 60])
@pytest.mark.parametrize("how", JPEGS.values(), ids=list(JPEGS))
def test_a_jpeg_has_the_pixels_that_pillow_gives_it(how, at_least, monkeypatch):
    content = jpeg(**how)
    read = []
    monkeypatch.setattr(load, "decode_jpeg", lambda of: read.append(decode_jpeg(of)) or read[-1])
    picture = read_picture(content, at_least)
    assert (read[0] is None) == (how.get("mode") == "CMYK")
    monkeypatch.setattr(load, "decode_jpeg", lambda of: None)
    pillows = read_picture(content, at_least)
    assert np.array_equal(picture.image, pillows.image) and picture.full_size == pillows.full_size
    assert picture.image.flags.c_contiguous and picture.image.flags.writeable


def damaged(content, seed):
    """Some bytes are others, or the end is missing."""
    random = np.random.default_rng(seed)
    wrong = bytearray(content)
    for place in random.integers(20, len(wrong), 1 + seed % 5):
        wrong[place] = random.integers(256)
    return bytes(wrong[: random.integers(100, len(wrong))] if seed % 3 == 0 else wrong)


def test_a_damaged_jpeg_is_what_pillow_makes_of_it(monkeypatch):
    def outcome(content):
        try:
            return read_picture(content, 150).image.tobytes()
        except ValueError as error:
            return str(error)

    contents = [damaged(jpeg(), seed) for seed in range(60)]
    ours = [outcome(content) for content in contents]
    monkeypatch.setattr(load, "decode_jpeg", lambda of: None)
    assert ours == [outcome(content) for content in contents]
    assert {str, bytes} == set(map(type, ours))  # some can be read all the same


def test_a_png_or_a_small_jpeg_is_read_whole(tmp_path):
    image = Image.fromarray(GRADIENT)
    for name in ("x.png", "x.jpg"):
        picture = read_picture(saved(tmp_path, image, name), at_least=60)
        assert picture.image.shape == (40, 60, 3) and picture.scale == 1


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.jpg")


def jpeg_bytes():
    return encoded(Image.fromarray(GRADIENT).resize((300, 200)), "JPEG", quality=95)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"these are words", "not a picture"),
        (b"\xff\xd8\xff\xe0 no more", "damaged or truncated"),
        (jpeg_bytes()[:900], "truncated"),
        (png_claiming(50_000, 50_000), "too large"),
        (png_claiming(20, 20), "damaged or truncated"),
        (b"P6\n1x 10\n255\n", r"damaged or truncated \(invalid literal"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "PostScript, which"),
    ],
)
def test_a_bad_file_is_one_clear_reason(tmp_path, monkeypatch, content, reason):
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", False)
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_the_largest_picture_is_a_limit_that_may_be_chosen(tmp_path):
    path = saved(tmp_path, Image.fromarray(GRADIENT), "x.png")
    assert read_image(path, max_pixels=2400).shape == (40, 60, 3)
    with pytest.raises(ValueError, match=r"60x40 are 0.0024 million.*0\.002399 .*--max-pixels"):
        read_image(path, max_pixels=2399)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_limit_may_lie_above_pillows_own_which_stays_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    path = saved(tmp_path, Image.fromarray(GRADIENT), "x.png")
    assert read_image(path).shape == (40, 60, 3)
    assert Image.MAX_IMAGE_PIXELS == 1000


READ = """
import resource, sys
from faceattr.images.load import BYTES_A_PIXEL, read_image
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
read_image(sys.argv[1])
before = peak()
read_image(sys.argv[2])
spent = (peak() - before) / 4000**2
assert spent < BYTES_A_PIXEL, spent
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is told in other units there")
@pytest.mark.parametrize(
    ("mode", "name", "orientation"),
    [
        ("RGB", "x.png", 6),
        ("RGBA", "x.png", 1),
        ("RGB", "x.webp", 1),
        ("I;16", "x.png", 1),
        ("I", "x.tif", 1),
        ("F", "x.tif", 1),
    ],
)
def test_reading_takes_no_more_memory_than_is_said(tmp_path, mode, name, orientation):
    exif = exif_of(orientation)
    large = saved(tmp_path, Image.new(mode, (4000, 4000)), name, exif=exif)
    small = saved(tmp_path, Image.new(mode, (40, 40)), f"small-{name}", exif=exif)
    subprocess.run([sys.executable, "-c", READ, small, large], check=True)


def test_a_folder_called_like_a_picture_is_refused(tmp_path):
    (tmp_path / "x.jpg").mkdir()
    with pytest.raises(ValueError, match="not a file"):
        read_image(tmp_path / "x.jpg")

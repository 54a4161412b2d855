"""Files: formats, modes, and that none is ever half overwritten."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from heatmap import HeatmapError, picture
from heatmap.legend import Legend, add_legend
from heatmap.palette import LegendEntry
from heatmap.terminal import legend_lines, picture_lines

LOSSLESS = (".png", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".tga")


def colourful(side: int = 4) -> Image.Image:
    shades = np.arange(side * side * 3, dtype=np.uint32).reshape(side, side, 3) * 5 % 256
    return Image.fromarray(shades.astype(np.uint8))


@pytest.mark.parametrize("suffix", picture.FORMATS)
def test_formats(suffix: str, tmp_path: Path) -> None:
    target = tmp_path / f"picture{suffix.upper()}"
    picture.write_image(colourful(), target)
    with Image.open(target) as image:
        assert image.format == picture.FORMATS[suffix]
        assert image.size == (4, 4)
        if suffix in LOSSLESS:
            assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(colourful()))


def test_a_name_without_suffix_is_a_png(tmp_path: Path) -> None:
    picture.write_image(colourful(), tmp_path / "picture")
    assert (tmp_path / "picture").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["x.docx", "x.png.gz", "x.mp4", "x.py"])
def test_suffixes_that_are_no_pictures(name: str) -> None:
    with pytest.raises(HeatmapError, match="cannot write a picture") as caught:
        picture.check_output(name)
    assert ".png" in str(caught.value.hint)


def test_a_picture_too_large_for_its_format(tmp_path: Path) -> None:
    with pytest.raises(HeatmapError, match="too large"):
        picture.write_image(Image.new("RGB", (16384, 1)), tmp_path / "x.webp")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_mode_of_a_new_file_follows_the_umask(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        picture.write_image(colourful(), tmp_path / "x.png")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.png").stat().st_mode) == mode


def test_a_replaced_file_keeps_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "x.png"
    target.touch()
    target.chmod(0o640)
    picture.write_image(colourful(), target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.png").symlink_to("folder/x.png")
    picture.write_image(colourful(), tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "folder/x.png").is_file()


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x.png"
    target.write_bytes(b"old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    made = colourful()
    monkeypatch.setattr(made, "save", full)
    with pytest.raises(OSError, match="No space left") as caught:
        picture.write_image(made, target)
    assert caught.value.filename == str(target)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    picture.write_image(colourful(), pipe)
    reader.join(timeout=30)
    assert got[0].startswith(b"\x89PNG")
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize(
    ("name", "error"),
    [("missing/x.png", FileNotFoundError), ("file/x.png", NotADirectoryError)],
)
def test_outputs_that_cannot_be(name: str, error: type[OSError], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(error):
        picture.check_output(tmp_path / name)


def test_a_folder_is_an_output(tmp_path: Path) -> None:
    picture.check_output(tmp_path)
    picture.check_output(picture.STDOUT)


def test_packed_pixels_become_an_image() -> None:
    packed = np.array([[0x0000FF, 0x00FF00], [0xFF0000, 0x010203]], dtype="<u4")
    image = picture.image(packed, 4)
    assert image.size == (4, 4)
    assert image.getpixel((0, 0)) == image.getpixel((1, 1)) == (255, 0, 0)
    assert image.getpixel((3, 3)) == (3, 2, 1)


LEGEND = Legend(
    title="atlas: device 1",
    notes=["fsid 9881fc30-8f69-4069-a8c8-c057b842b0c4", "16.00MiB per pixel"],
    entries=[
        LegendEntry("data", (255, 255, 255), 3 << 30, 1 << 30),
        LegendEntry("metadata", (0, 0, 255), 1 << 30, 1 << 20),
        LegendEntry("not allocated", (0, 0, 0), 1 << 30, 0),
    ],
    min_brightness=0.1,
)


@pytest.mark.parametrize("side", [2, 256, 1024, 4096])
def test_a_legend_is_below_the_picture(side: int) -> None:
    whole = add_legend(colourful(side), LEGEND)
    left = (whole.width - side) // 2
    above = whole.crop((left, 0, left + side, side))
    assert np.array_equal(np.asarray(above), np.asarray(colourful(side)))
    assert whole.width == max(side, 480)
    assert whole.height > side
    strip = np.asarray(whole.crop((0, side, whole.width, whole.height)))
    colours = {tuple(pixel) for pixel in strip.reshape(-1, 3).tolist()}
    assert {(255, 255, 255), (0, 0, 255), (26, 26, 26), (0, 0, 0)} <= colours


def test_a_legend_has_room_for_long_words() -> None:
    long = Legend("x" * 500, ["y" * 500], LEGEND.entries)
    assert add_legend(colourful(64), long).width == 480


def test_terminal_shows_two_pixels_in_a_character() -> None:
    pixels = np.array([[[1, 2, 3], [1, 2, 3]], [[4, 5, 6], [7, 8, 9]]], dtype=np.uint8)
    assert list(picture_lines(pixels, 2)) == [
        "\x1b[38;2;1;2;3m\x1b[48;2;4;5;6m▀\x1b[48;2;7;8;9m▀\x1b[0m"
    ]


@pytest.mark.parametrize(
    ("side", "columns", "shown"), [(1, 1, 1), (2, 80, 80), (16, 70, 64), (1024, 80, 80), (64, 3, 3)]
)
def test_terminal_picture_fits_the_width(side: int, columns: int, shown: int) -> None:
    lines = list(picture_lines(np.asarray(colourful(side)), columns))
    assert len(lines) == (shown + 1) // 2
    assert {line.count("▀") for line in lines} == {shown}


def test_terminal_shows_means_of_what_does_not_fit() -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[::2] = 200
    assert list(picture_lines(pixels, 2)) == [
        "\x1b[38;2;100;100;100m\x1b[48;2;100;100;100m▀▀\x1b[0m"
    ]


def test_terminal_legend() -> None:
    lines = list(legend_lines(LEGEND))
    assert lines[0] == LEGEND.title
    assert any("\x1b[48;2;0;0;255m" in line and "metadata" in line for line in lines)

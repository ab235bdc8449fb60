"""Masks of predicted instances, the literal way: which pixels the public script would call the instance.

The script (AutoNUE public-code and cityscapesScripts, evalInstanceLevelSemanticLabeling.py) has Pillow
convert a mask to grey ("L"), without its alpha, and takes every pixel that is not zero then. That is what a
mask of grey values means in any case. Where it depends on colours that a reader may not see, because the
index, a dark colour or the alpha says another thing, the mask is refused: the script would score it in
silence.

Section numbers refer to the PNG specification, third edition (https://www.w3.org/TR/png-3/).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gpu_eval.errors import CorruptImage, WrongImageMode
from gpu_eval.inputs.png import GREY, GREY_ALPHA, PALETTE, PngHeader, decode_pixels, read

Mask = npt.NDArray[np.uint8]

EXPECTED = "8-bit grey, 0 outside and 255 on the instance"
FIX = "save masks as 8-bit grey: Image.fromarray(mask.astype('uint8') * 255)"


def decode_mask(data: bytes | memoryview, file: str) -> Mask:
    """1 where the instance is, 0 elsewhere; shape (height, width). tRNS is ignored.

    Raises
        CorruptImage, ImageTooLarge: as `png.read`; also a palette index without a colour.
        WrongImageMode: colours, palette or alpha that readers may take for another mask; 16-bit colours,
            of which Pillow reads the high bytes only.
    """
    mask = read(data, file, _check_mode)
    header = mask.header
    if header.colour_type == PALETTE:
        _check_palette(mask.palette, header, file)
    pixels = decode_pixels(mask, file)
    instance: npt.NDArray[np.bool_]
    if header.colour_type == GREY:
        instance = np.not_equal(pixels, 0)
        return instance.astype(np.uint8)
    values = pixels.astype(np.uint8, copy=False)
    if header.colour_type == PALETTE:
        _check_colours(values, mask.palette, header, file)
        instance = np.not_equal(values, 0)
        return instance.astype(np.uint8)
    if header.colour_type == GREY_ALPHA:
        instance = np.not_equal(values[:, :, 0], 0)
    else:
        instance = _luma(values) != 0
        _refuse_unless_equal(
            instance,
            np.any(values[:, :, :3], axis=2),
            "colours so dark that Pillow makes them black",
            header,
            file,
        )
    if values.shape[2] in (2, 4) and values[:, :, -1].min() != 255:
        _refuse_unless_equal(
            instance,
            values[:, :, -1] != 0,
            "colour and alpha show different masks; the public script ignores alpha",
            header,
            file,
        )
    return instance.astype(np.uint8)


def _check_mode(header: PngHeader, file: str) -> None:
    if header.bit_depth == 16 and header.colour_type != GREY:
        raise WrongImageMode(
            "16-bit colours, of which Pillow reads the high bytes only",
            file=file,
            found=header.mode,
            expected=EXPECTED,
            fix=FIX,
        )


def _check_palette(palette: bytes, header: PngHeader, file: str) -> None:
    """Section 11.2.2: whole colours, and no more of them than the bit depth can name."""
    most = 3 * 2**header.bit_depth
    if len(palette) % 3 or not 0 < len(palette) <= most:
        raise CorruptImage(
            "the PLTE chunk has a wrong size",
            file=file,
            found=f"{len(palette)} bytes",
            expected=f"3 bytes per colour, at most {most}",
        )


def _check_colours(indices: Mask, palette: bytes, header: PngHeader, file: str) -> None:
    """Refuse a mask whose indices and whose colours show different instances."""
    colours = np.frombuffer(palette, np.uint8).reshape(-1, 3)
    used = np.flatnonzero(np.bincount(indices.ravel(), minlength=256))
    if used[-1] >= len(colours):
        raise CorruptImage(  # section 11.2.2 calls it an error; readers make up a colour
            "a pixel's colour is not in the palette",
            file=file,
            found=f"index {used[-1]}",
            expected=f"0 to {len(colours) - 1}",
        )
    black = _luma(colours) == 0
    for index in used.tolist():
        if black[index] != (index == 0):
            colour = ", ".join(str(value) for value in colours[index].tolist())
            raise WrongImageMode(
                f"the palette paints index {index} {'black' if black[index] else 'in a colour'}: "
                "by index and by colour it is another mask",
                file=file,
                found=f"{header.mode}, index {index} is ({colour})",
                expected=EXPECTED,
                fix=FIX,
            )


def _refuse_unless_equal(
    seen: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_], why: str, header: PngHeader, file: str
) -> None:
    """Refuse a mask of which the script sees another instance than some other reader."""
    pixels = int(np.count_nonzero(seen != other))
    if pixels:
        raise WrongImageMode(
            why, file=file, found=f"{header.mode}, {pixels} such pixels", expected=EXPECTED, fix=FIX
        )


def _luma(colours: Mask) -> npt.NDArray[np.integer]:
    """Pillow's "L" of RGB(A) in the last axis: ITU-R 601-2 in 16-bit fixed point (Convert.c, L24)."""
    red, green, blue = (colours[..., channel].astype(np.uint32) for channel in range(3))
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16

"""What is wrong with arrays that cannot be counted, and the one expression that mends it.

A fix begins with an expression in `gt` and `pred`, the names of the arguments, to be typed as it stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from gpu_eval.errors import OptionError
from gpu_eval.labels.colours import Colours, codes_of, rgb_of

Shape = tuple[int, ...]
Array = npt.NDArray[Any]

# Rows and columns from which on a third axis of 3 or 4 is one of colours, not a map of that width.
LEAST_PICTURE = 16

# The share of values outside an encoding from which on three channels are colours.
FOREIGN = 0.1


@dataclass(frozen=True)
class Seen:
    """What can be told of an array: its argument's name, shape, type, and its values if NumPy has them.

    `torch` says that it has torch's methods, not NumPy's.
    """

    name: str
    shape: Shape
    dtype: str
    torch: bool = False
    values: Array | None = None

    @property
    def is_bool(self) -> bool:
        return self.dtype.endswith("bool")

    @property
    def is_float(self) -> bool:
        return "float" in self.dtype

    @property
    def found(self) -> str:
        return f"dtype {self.dtype}, shape {self.shape}"


def seen(name: str, given: Any, values: Array | None = None) -> Seen:
    """An argument as it was given; `values` is what NumPy has of it. Imports nothing."""
    dtype = str(getattr(given if hasattr(given, "dtype") else values, "dtype", type(given).__name__))
    shape = getattr(given, "shape", ()) if values is None else values.shape
    torch = dtype.startswith("torch.") or (values is None and not hasattr(given, "astype"))
    sizes = tuple(int(side) for side in shape) if isinstance(shape, tuple | list) else ()
    return Seen(name, sizes, dtype.removeprefix("torch."), torch, values)


def check_types(gt: Seen, pred: Seen, n_classes: int) -> None:
    """Raise OptionError for an array whose type is none of labels: floats, objects, text."""
    for side, other in ((gt, pred), (pred, gt)):
        if side.is_float:
            raise _floats(side, other, n_classes)
        kind = None if side.values is None else side.values.dtype.kind
        if kind == "O":
            raise _objects(side)
        if kind is not None and kind not in "iub":
            raise _error(side, None)


def check_shapes(gt: Seen, pred: Seen, n_classes: int, *, palette: Colours | None) -> None:
    """Raise OptionError for integer arrays of shapes that differ, with what would make them one."""
    if gt.shape == pred.shape:
        return
    for side, other in ((pred, gt), (gt, pred)):
        channels = _colour_axis(side, other)
        axis = _class_axis(side.shape, other.shape, n_classes, exact=True)
        counted = axis is not None and side.shape[axis] in (n_classes, n_classes + 1)
        if axis is not None and (_is_one_hot(side, axis) or (counted and channels is None)):
            raise _error(side, f"{_argmax(side, other, axis)} gives labels", "one label per pixel")
        if channels is not None:
            raise _colours(side, channels, palette=palette)
        if squeezed := _squeezed(side, other):
            raise _differ(gt, pred, f"{squeezed} gives {side.name} the shape of {other.name}")
    raise _differ(gt, pred, _reshaped(gt, pred))


def check_pictures(
    gt: Seen, pred: Seen, n_classes: int, outside: Callable[[Seen], float], *, palette: Colours | None
) -> None:
    """Raise OptionError for arrays of one shape that are certainly colours or one-hot.

    `outside` is the share of the values of an array that its encoding does not have.
    """
    shape = gt.shape
    if len(shape) < 3 or gt.values is None or pred.values is None:
        return
    for axis, size in enumerate(shape):
        counted = size > 2 and size in (n_classes, n_classes + 1)
        if counted and _is_one_hot(gt, axis) and _is_one_hot(pred, axis):
            fix = f"gt.argmax({axis}), pred.argmax({axis}) gives labels"
            raise _error(pred, fix, "one label per pixel", message="gt and pred are one-hot")
    if shape[-1] not in (3, 4) or min(shape[-3:-1]) < LEAST_PICTURE:
        return
    for side in (gt, pred):
        if side.dtype == "uint8" and not _is_grey(side, len(shape) - 1) and outside(side) > FOREIGN:
            raise _colours(side, len(shape) - 1, palette=palette)


def unseen(given: Any, other: Any, name: str, n_classes: int, error: Exception) -> OptionError:
    """The error of an argument that NumPy cannot make an array of, for `error`."""
    other_name = "pred" if name == "gt" else "gt"
    side, against = seen(name, given), seen(other_name, other)
    device = str(getattr(given, "device", ""))
    told = f"{type(given).__name__}: {error}"
    if "device type" in str(error) or (device and not device.startswith("cpu")):
        fix = f"{name}.cpu() moves it there"
    elif side.is_float:
        return _floats(side, against, n_classes)
    elif "requires grad" in str(error):
        fix = f"{name}.detach() leaves the gradient away"
    elif isinstance(given, list | tuple):
        fix = (
            "for g, p in zip(gt, pred): meter.update(g, p) counts maps of several sizes, one by one; "
            "a single map needs rows of one length"
        )
    else:
        fix = f"np.asarray({name}) has to give an array of integers"
    return OptionError(
        f"{name} is not an array that NumPy can see",
        found=told,
        expected="an integer array in host memory",
        fix=fix,
    )


def is_masked(given: Any) -> TypeGuard[np.ma.MaskedArray[Any, Any]]:
    """Whether an array hides some of its values, which NumPy would count all the same."""
    return isinstance(given, np.ma.MaskedArray) and bool(np.ma.getmaskarray(given).any())


def masked(given: np.ma.MaskedArray[Any, Any], name: str, void: int | None) -> OptionError:
    """The error of an array with masked values; `void` is a raw value that means void, if there is one."""
    if void is None:
        fix = f"no value of this encoding is void: count only the pixels that are in neither mask of {name}"
    else:
        fix = f"{name}.filled({void}) makes them void"
    return OptionError(
        f"{name} has masked values, which would be counted",
        found=f"{int(np.ma.getmaskarray(given).sum())} of {given.size} masked",
        expected="a plain array",
        fix=fix,
    )


def colour_channels(array: Array, name: str) -> npt.NDArray[np.uint8]:
    """An array of colours, uint8 (..., 3 or 4). Raises OptionError for any other."""
    integers = array.dtype.kind in "iu" and array.ndim and array.shape[-1] in (3, 4)
    if integers and (array.size == 0 or (array.min() >= 0 and array.max() <= 255)):
        return array.astype(np.uint8, copy=False)
    side = seen(name, array, array)
    fix = f"{name}_encoding='colour' is for arrays of red, green and blue; leave it away for label ids"
    if array.ndim > 2 and array.shape[-3] in (3, 4):
        fix = f"np.moveaxis({name}, {array.ndim - 3}, -1) has the colours last"
    raise _error(side, fix, "red, green and blue, 0..255, in the last axis")


# --- types ---------------------------------------------------------------------------------------


def _floats(side: Seen, other: Seen, n_classes: int) -> OptionError:
    name = side.name
    axis = _class_axis(side.shape, other.shape, n_classes, exact=False)
    if axis is not None and side.shape[axis] > 1:
        return _error(side, f"{_argmax(side, other, axis)} gives labels, of the {side.shape[axis]} classes")
    flat = _squeezed(side, other) or name
    values = None if side.values is None else np.asarray(side.values, np.float64)
    if values is None or values.size == 0:
        cast = ".to(torch.uint8)" if side.torch else ".astype('uint8')"
        return _error(side, f"{flat}{cast} gives labels, if these are whole numbers")
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    cast = ".long()" if side.torch else ".astype('uint8')" if low >= 0 and high <= 255 else ".astype('int64')"
    if (finite == np.rint(finite)).all():
        if finite.size == values.size:
            return _error(side, f"{flat}{cast} gives labels: all are whole numbers")
        library = "torch" if side.torch else "np"
        whole = f"{library}.nan_to_num({flat}, nan=255, posinf=255, neginf=255){cast}"
        fix = f"{whole} gives labels, if 255 is void"
        found = f"{side.found}, {values.size - finite.size} not finite"
        return _error(side, fix, found=found)
    scaled = finite * 255
    if low >= 0 and high <= 1 and np.abs(scaled - np.rint(scaled)).max() < 1e-3:
        fix = f"({flat} * 255).round(){cast} gives labels: all are 255ths, as ToTensor makes them"
        return _error(side, fix)
    if n_classes <= 2:
        threshold = "0" if low < 0 or high > 1 else "0.5"
        return _error(side, f"({flat} > {threshold}) gives labels, 0 and 1")
    return _error(
        side, f"scores have to keep their axis of {n_classes} classes; argmax over that axis gives labels"
    )


def _objects(side: Seen) -> OptionError:
    assert side.values is not None
    kinds = {type(value).__name__ for value in side.values.reshape(-1)[:1000]}
    if side.values.ndim and kinds <= {"int", "bool", "int64", "int32", "uint8"}:
        return _error(side, f"{side.name}.astype('int64') gives labels")
    if side.values.ndim and kinds & {"list", "tuple", "ndarray", "Tensor"}:
        return _error(side, "for g, p in zip(gt, pred): meter.update(g, p) counts them one by one")
    return _error(side, None, found=f"objects of type {', '.join(sorted(kinds))}")


# --- shapes --------------------------------------------------------------------------------------


def _class_axis(shape: Shape, other: Shape, n_classes: int, *, exact: bool) -> int | None:
    """The axis of scores of classes: without it the shape is the other's, or it has as many as classes."""
    axes = [
        axis
        for axis, size in enumerate(shape)
        if shape[:axis] + shape[axis + 1 :] == other
        or ((size == n_classes or axis == 1) and size > 1 and _with_one(shape, axis) == other)
    ]
    counted = [axis for axis, size in enumerate(shape) if size in (n_classes, n_classes + 1)]
    if not axes and not exact and len(shape) >= 3 and shape != other:
        axes = counted
    fitting = [axis for axis in axes if axis in counted] or axes
    usual = (1, 0, len(shape) - 1) if len(shape) > 3 else (0, len(shape) - 1, 1)
    return next((axis for axis in (*usual, *fitting) if axis in fitting), None)


def _with_one(shape: Shape, axis: int) -> Shape:
    return (*shape[:axis], 1, *shape[axis + 1 :])


def _argmax(side: Seen, other: Seen, axis: int) -> str:
    keeps = len(side.shape) == len(other.shape) and other.shape[axis] == 1
    word = "keepdim" if side.torch else "keepdims"
    return f"{side.name}.argmax({axis}{f', {word}=True' if keeps else ''})"


def _squeezed(side: Seen, other: Seen) -> str | None:
    """The expression that drops an axis of size 1 that the other shape does not have."""
    for axis, size in enumerate(side.shape):
        if size == 1 and side.shape[:axis] + side.shape[axis + 1 :] == other.shape:
            return f"{side.name}.squeeze({axis})"
    return None


def _reshaped(gt: Seen, pred: Seen) -> str:
    """What makes two shapes of labels one."""
    if gt.shape[:-2] == pred.shape[:-2] and gt.shape[-2:] == pred.shape[-2:][::-1] and len(gt.shape) > 1:
        return "pred.swapaxes(-1, -2) gives pred the shape of gt: rows and columns are swapped"
    if math.prod(gt.shape) == math.prod(pred.shape) and len(gt.shape) != len(pred.shape):
        return "pred.reshape(gt.shape) gives pred the shape of gt, if the order is the same"
    if len(gt.shape) == len(pred.shape) >= 2 and gt.shape[:-2] == pred.shape[:-2]:
        height, width = gt.shape[-2:]
        return f"{_resize(pred, height, width)} gives pred the size of gt, {width}x{height}"
    if len(gt.shape) == len(pred.shape) > 2 and gt.shape[1:] == pred.shape[1:]:
        return f"give the same images on both sides: {gt.shape[0]} maps of gt, {pred.shape[0]} of pred"
    return "give a label per pixel on both sides, pred resized by nearest neighbour where sizes differ"


def _resize(pred: Seen, height: int, width: int) -> str:
    """The expression that resizes maps by nearest neighbour."""
    if pred.torch:
        axes = {2: "[None, None]", 3: "[:, None]"}.get(len(pred.shape), "")
        undone = {2: "[0, 0]", 3: "[:, 0]"}.get(len(pred.shape), "")
        return (
            f"torch.nn.functional.interpolate(pred{axes}.float(), ({height}, {width}), mode='nearest')"
            f"{undone}.long()"
        )
    cast = "" if pred.dtype == "uint8" else ".astype('uint8')"
    size = f"({width}, {height}), Image.Resampling.NEAREST"
    if len(pred.shape) == 2:
        return f"np.asarray(Image.fromarray(pred{cast}).resize({size}))"
    maps = f"pred{cast}" if len(pred.shape) == 3 else f"pred{cast}.reshape(-1, *pred.shape[-2:])"
    resized = f"np.stack([np.asarray(Image.fromarray(p).resize({size})) for p in {maps}])"
    return resized if len(pred.shape) == 3 else f"{resized}.reshape(gt.shape)"


def _colour_axis(side: Seen, other: Seen) -> int | None:
    """The axis of an array's colours, beside the map `other`."""
    shape = side.shape
    for axis in (len(shape) - 1, len(shape) - 3):
        beside = len(shape) > 2 and shape[:axis] + shape[axis + 1 :] == other.shape
        if beside and shape[axis] in (3, 4):
            return axis
    return None


def _is_one_hot(side: Seen, axis: int) -> bool:
    values = side.values
    if values is None or values.size == 0 or side.shape[axis] < 2 or values.max() > 1 or values.min() < 0:
        return False
    return bool((values.sum(axis) == 1).all())


def _is_grey(side: Seen, axis: int) -> bool:
    if side.values is None:
        return False
    first, second, third = (side.values.take(channel, axis) for channel in range(3))
    return bool(np.array_equal(first, second) and np.array_equal(first, third))


def _colours(side: Seen, axis: int, *, palette: Colours | None) -> OptionError:
    name = side.name
    if _is_grey(side, axis):
        index = "..., 0" if axis == len(side.shape) - 1 else ", ".join([*[":"] * axis, "0"])
        fix = f"{name}[{index}] gives labels: all channels are equal"
    elif palette is None:
        fix = "give label ids: the label table has no colours that say what these are"
    elif (strange := _strange_colour(side, axis, palette)) is not None:
        fix = f"give label ids: {strange} is no colour of one class of the label table"
    elif axis == len(side.shape) - 1:
        fix = f"{name}_encoding='colour' reads the colours of the label table"
    else:
        moved = f"{name}.movedim({axis}, -1)" if side.torch else f"np.moveaxis({name}, {axis}, -1)"
        fix = f"{moved} with {name}_encoding='colour' reads the colours of the label table"
    message = f"{name} has {side.shape[axis]} channels, as a picture has"
    return _error(side, fix, "one label per pixel", message=message)


def _strange_colour(side: Seen, axis: int, palette: Colours) -> str | None:
    """A colour of an array, as people write it, by which it cannot be read."""
    if side.values is None or side.values.min() < 0 or side.values.max() > 255:
        return None
    codes = np.unique(codes_of(np.moveaxis(side.values, axis, -1).astype(np.uint8)))
    known = np.array(sorted(palette.classes(is_gt=side.name == "gt")), np.uint32)
    strange = codes[~np.isin(codes, known)]
    return f"({', '.join(map(str, rgb_of(int(strange[0]))))})" if strange.size else None


# --- the errors ----------------------------------------------------------------------------------


def _error(
    side: Seen,
    fix: str | None,
    expected: str = "integers",
    *,
    message: str | None = None,
    found: str | None = None,
) -> OptionError:
    told = message or f"{side.name} is not an array of labels"
    return OptionError(told, found=found or side.found, expected=expected, fix=fix)


def _differ(gt: Seen, pred: Seen, fix: str) -> OptionError:
    return OptionError(
        "gt and pred differ in shape", found=f"{gt.shape} and {pred.shape}", expected="one shape", fix=fix
    )

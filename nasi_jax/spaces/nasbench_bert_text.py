"""Notation of NAS-Bench-BERT: ``h256|sdp-4-ff1024-1024-1024|sdp-2-ff1024``, what was trained, layer by layer."""

from __future__ import annotations

import re

from nasi_jax.spaces.text import unquoted

WIDTHS = (128, 256)
HEADS = (2, 4)
DEEP = (512, 1024)
LAYERS = tuple(f"sdp-{heads}-ff{deep}" for heads in HEADS for deep in ("", *(f"-{f}-{f}" for f in DEEP)))
"""The choices of a layer: heads, and the layers behind the first one of the feed-forward, none or two."""

_EXAMPLE = "h256|sdp-4-ff1024-512-512|sdp-2-ff1024"
_TRAINED = re.compile(r"sdp-([24])-ff(\d+)((?:-\d+-\d+)?)")
_DESCRIBED = re.compile(r"(?:sdp|wma|dft|dct|conv5|conv9)-([24])-ff(512|1024)x([13])")
_COUNTS = (2, 4)


def parse(text: str) -> tuple[int, tuple[int, ...]]:
    """Reads the notation of what was trained, or that of what the benchmark describes.

    Args:
        text: the width, then the layers, two or four of them. Of those that were trained, the attention's heads and the
            channels of the feed-forward, of which the first are four times the width; such as
            ``h256|sdp-4-ff1024-512-512|sdp-2-ff1024``. Of those that are described, an operation, heads, and channels
            and number of the feed-forward layers; such as ``h256|dct-4-ff512x3|wma-2-ff1024x1``, which is the same
            network, because neither the operation nor the channels of a single layer had an effect in the training.

    Returns:
        The width's index in `WIDTHS`, and for each layer an index into `LAYERS`.

    Raises:
        ValueError: `text` is something else.
    """
    first, *parts = unquoted(text).split("|")
    if first not in {f"h{width}" for width in WIDTHS} or len(parts) not in _COUNTS:
        raise ValueError(
            f"genotype: expected {_EXAMPLE!r}, a width of 128 or 256 and 2 or 4 layers, got {text[:200]!r}"
        )
    width = int(first[1:])
    return WIDTHS.index(width), tuple(_layer(part, width) for part in parts)


def _layer(part: str, width: int) -> int:
    if described := _DESCRIBED.fullmatch(part):
        heads, deep, count = described.groups()
        name = f"sdp-{heads}-ff" + (f"-{deep}-{deep}" if count == "3" else "")
        return LAYERS.index(name)
    found = _TRAINED.fullmatch(part)
    if found is None or f"sdp-{found[1]}-ff{found[3]}" not in LAYERS:
        raise ValueError(f"genotype: expected a layer such as 'sdp-4-ff{4 * width}-512-512', got {part[:80]!r}")
    if int(found[2]) != 4 * width:
        raise ValueError(
            f"genotype: expected first {4 * width} channels, four times the width, of feed-forward layers, got {part!r}"
        )
    return LAYERS.index(f"sdp-{found[1]}-ff{found[3]}")


def written(width: int, layers: tuple[int, ...]) -> str:
    """Writes the notation of what was trained; see `parse`."""
    names = (LAYERS[i].replace("ff", f"ff{4 * WIDTHS[width]}") for i in layers)
    return "|".join([f"h{WIDTHS[width]}", *names])

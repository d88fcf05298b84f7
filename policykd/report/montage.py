"""Drawing for videos: rendered frames with a caption each, side by side. Pure functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from policykd.spine.errors import InputError

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

Frame = NDArray[np.uint8]  # [height, width, 3]
Colour = tuple[int, int, int]

_MIN_WIDTH = 320  # smaller renderings (Atari: 160) are enlarged, or the caption would not fit
_GAP = 4
_BACKGROUND: Colour = (24, 26, 30)
_TEXT: Colour = (240, 240, 240)
_QUIET: Colour = (170, 174, 180)
_ACCENTS: tuple[Colour, ...] = ((94, 165, 255), (255, 167, 66), (120, 210, 130), (222, 120, 220))
_DIM = 0.55  # brightness of a panel whose episode is over


@dataclass(frozen=True)
class Caption:
    """What stands above a panel; `done` marks a held last frame."""

    name: str
    step: int
    episode_return: float
    done: bool


def compose(frames: Sequence[Frame], captions: Sequence[Caption]) -> Frame:
    """One picture [height, width, 3] with even sides (H.264 needs them): the panels from left to right."""
    paired = zip(frames, captions, strict=True)
    panels = [_panel(frame, caption, _ACCENTS[i % len(_ACCENTS)]) for i, (frame, caption) in enumerate(paired)]
    height = max(len(panel) for panel in panels)
    gap = np.full((height, _GAP, 3), _BACKGROUND, np.uint8)
    row: list[Frame] = []
    for panel in panels:
        row += [gap, _padded(panel, height, panel.shape[1])]
    whole = np.concatenate(row[1:], axis=1)
    return _padded(whole, height + height % 2, whole.shape[1] + whole.shape[1] % 2)


def as_frame(rendered: Any, env_name: str) -> Frame:
    """What `render` returned as a frame; InputError when it is no picture."""
    picture = np.asarray(rendered if rendered is not None else 0)
    if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        found = "nothing" if rendered is None else f"shape {picture.shape}"
        raise InputError(
            f"env {env_name}: render() gave {found}, expected an image [height, width, 3]; it cannot be filmed"
        )
    return np.ascontiguousarray(picture, np.uint8)


def shrunk(frame: Frame, max_width: int) -> Frame:
    """The frame with at most `max_width` columns, in proportion."""
    from PIL import Image

    height, width = frame.shape[:2]
    if width <= max_width:
        return frame
    size = (max_width, max(round(height * max_width / width), 1))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))


def _panel(frame: Frame, caption: Caption, accent: Colour) -> Frame:
    scale = -(-_MIN_WIDTH // frame.shape[1])
    picture = frame.repeat(scale, 0).repeat(scale, 1) if scale > 1 else frame
    if caption.done:
        picture = (picture * _DIM).astype(np.uint8)
    return np.concatenate([_bar(picture.shape[1], caption, accent), picture])


def _bar(width: int, caption: Caption, accent: Colour) -> Frame:
    """Two lines of text on a strip in the panel's colour: the name and whether it is done; step and return."""
    from PIL import Image, ImageDraw

    size = max(min(width // 24, 28), 13)
    line, margin = round(size * 1.35), round(size * 0.5)
    image = Image.new("RGB", (width, 2 * line + 2 * margin), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    right = width - margin
    if caption.done:
        right -= round(draw.textlength("done", _font(size)))
        draw.text((right, margin), "done", accent, _font(size))
    name = _fitted(draw, caption.name, right - 2 * margin, size)
    draw.text((margin, margin), name, _TEXT, _font(size))
    figures = f"step {caption.step}    return {caption.episode_return:.1f}"
    draw.text((margin, margin + line), figures, _QUIET, _font(size))
    draw.rectangle((0, image.height - 3, width, image.height), accent)
    return np.asarray(image)


def _fitted(draw: ImageDraw, text: str, room: int, size: int) -> str:
    """`text`, cut with an ellipsis where it is longer than `room` pixels."""
    if draw.textlength(text, _font(size)) <= room:
        return text
    while text and draw.textlength(text + "...", _font(size)) > room:
        text = text[:-1]
    return text + "..."


@lru_cache(maxsize=8)
def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _padded(frame: Frame, height: int, width: int) -> Frame:
    rows, columns = frame.shape[:2]
    if (rows, columns) == (height, width):
        return frame
    whole = np.full((height, width, 3), _BACKGROUND, np.uint8)
    whole[:rows, :columns] = frame
    return whole

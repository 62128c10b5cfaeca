"""Contrast of two colours as WCAG 2 defines it."""

import numpy as np

__all__ = ["contrast", "mixed"]


def contrast(a: str, b: str) -> float:
    """Between 1 (the same) and 21 (black on white)."""
    bright, dark = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def mixed(a: str, b: str, share: float) -> str:
    """The colour that is `share` of `a` and otherwise `b`."""
    return "#" + "".join(f"{round(x):02x}" for x in 255 * (share * _channels(a) + (1 - share) * _channels(b)))


def _channels(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255


def _luminance(colour: str) -> float:
    channels = _channels(colour)
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])

"""How the loss of one size rises from its bottom, over log rate × log batch.

Distances are in octaves (logarithms to base 2), heights in percent of the loss: 100 · ln of the
loss over the least one. With u and v the distances from the bottom in log rate and log batch,

    height = a u² exp(s · 2 tanh(u/2)) + 2 tanh(t) sqrt(a c) u v + c v² exp(r · 2 tanh(v/2)),

an asymmetric paraboloid whose axes may be tilted. The widths a and c change with the size as
powers of its numbers. What lies high above the bottom says little of where it is, so heights count
in full up to a unit and by their logarithm above.
"""

import numpy as np

from scaling.surface.space import Array

NUM_SHAPE = 5
"""Of a valley beside the powers: log a, log c, t, s, r."""
SHAPE_SD: Array = np.array([1.5, 1.5, 0.5, 0.5, 0.5])
"""Prior standard deviations; of t, s, r about the means below, of a and c about a tenth of the
unit at one octave from the bottom."""
_SHAPE_MEAN: Array = np.array([0.0, 0.0, -0.3, 0.3, 0.0])
"""A larger batch bears a larger rate, and a rate too high costs more than one too low."""
_AT_ONE_OCTAVE = 0.08
POWER_SD = 0.15
"""Of a width, for each number of a size."""
_WIDEST = 40.0
_REACH = 2.0


def prior_walls(unit: float, num_axes: int) -> Array:
    """[5 + 2 · axes] the prior mean of a valley's parameters."""
    shape = _SHAPE_MEAN.copy()
    shape[:2] = np.log(_AT_ONE_OCTAVE * unit)
    return np.concatenate([shape, np.zeros(2 * num_axes)])


def height(walls: Array, u: Array, v: Array, scale: Array) -> Array:
    """Percent above the bottom.

    Args:
        walls: [..., 5 + 2 · axes] log a, log c, t, s, r, then the powers of a and of c.
        u: [...] octaves of rate above the bottom.
        v: [...] octaves of batch above the bottom.
        scale: [..., axes] octaves of size above the ladder's middle.
    """
    axes = scale.shape[-1]
    powers = walls[..., NUM_SHAPE:]
    log_a = walls[..., 0] + (powers[..., :axes] * scale).sum(axis=-1)
    log_c = walls[..., 1] + (powers[..., axes:] * scale).sum(axis=-1)
    a = np.exp(np.clip(log_a, -_WIDEST, _WIDEST))
    c = np.exp(np.clip(log_c, -_WIDEST, _WIDEST))
    tilt, skew_rate, skew_batch = (walls[..., place] for place in (2, 3, 4))
    return (
        a * u**2 * np.exp(skew_rate * _REACH * np.tanh(u / _REACH))
        + 2 * np.tanh(tilt) * np.sqrt(a * c) * u * v
        + c * v**2 * np.exp(skew_batch * _REACH * np.tanh(v / _REACH))
    )


def squashed(heights: Array, unit: float) -> Array:
    """Heights in full up to a unit, and by their logarithm above it."""
    return np.where(heights > unit, unit * (1 + np.log(np.maximum(heights, unit) / unit)), heights)

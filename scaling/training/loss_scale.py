"""Scaling the loss so that float16 gradients neither vanish nor overflow.

Source: Micikevicius et al. 2018 (arXiv:1710.03740) sec. 3.2, with the constants of
torch.amp.GradScaler. GradScaler itself looks for overflow in each worker's own gradients; here
the norm of the global gradient says it, which is the same on all workers, cut weights or not.
"""

from scaling.spec.resources import Precision

INITIAL_SCALE = 2.0**16
GROWTH_INTERVAL = 2000  # steps without overflow after which the scale doubles
# From the initial scale so many halvings lead far below 1: no scale would have helped.
MAX_SKIPPED_IN_A_ROW = 20


class LossScale:
    """The factor of the loss in the backward pass: 1, or for fp16 one that adapts.

    Attributes:
        value: The factor; a power of two, so that dividing by it again is exact.
    """

    def __init__(self, precision: Precision) -> None:
        self._adapts = precision == "fp16"
        self.value = INITIAL_SCALE if self._adapts else 1.0
        self._num_finite = 0  # steps since the scale last changed
        self._skipped_in_a_row = 0

    def update(self, *, is_finite: bool) -> None:
        """Take in whether a step's gradient was finite."""
        if not self._adapts:
            return
        self._num_finite = self._num_finite + 1 if is_finite else 0
        self._skipped_in_a_row = 0 if is_finite else self._skipped_in_a_row + 1
        if not is_finite:
            self.value /= 2
        elif self._num_finite == GROWTH_INTERVAL:
            self.value *= 2
            self._num_finite = 0

    @property
    def explains_overflow(self) -> bool:
        """Whether a gradient that is not finite may be the scale's doing and no divergence."""
        return self._adapts and self._skipped_in_a_row < MAX_SKIPPED_IN_A_ROW

    def state(self) -> tuple[float, int, int]:
        """What a continued run needs, for `restore`."""
        return self.value, self._num_finite, self._skipped_in_a_row

    def restore(self, state: tuple[float, int, int]) -> None:
        """Go on from what `state` gave."""
        self.value, self._num_finite, self._skipped_in_a_row = state

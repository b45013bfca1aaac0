"""The size of a photo -> the size it is scaled to for the network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """How a photo is scaled for the network: shorter side `shorter`, longer at most `longer`; or into a frame.

    With `fit` (height, width) the photo is scaled, its shape kept, to the largest size that fits into the frame.
    """

    shorter: int
    longer: int
    fit: tuple[int, int] | None = None

    def limits(self, height: int, width: int) -> dict[str, int]:
        """`min_size` and `max_size` for `prepare_image`."""
        if self.fit is None:
            return {"min_size": self.shorter, "max_size": self.longer}
        scale = min(self.fit[0] / height, self.fit[1] / width)
        sides = sorted((max(1, round(height * scale)), max(1, round(width * scale))))
        return {"min_size": sides[0], "max_size": sides[1]}

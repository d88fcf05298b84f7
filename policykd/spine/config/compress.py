"""The section `compress`: students made smaller than they were trained (docs/methods/compress.md)."""

from __future__ import annotations

from typing import Literal

from policykd.spine.config.section import Section


class CompressConfig(Section):
    """Pruning and quantisation, of students of kind mlp. The student that is judged is the smaller one."""

    prune: Literal["none", "taylor", "variance"] = "none"
    """How the units are chosen that stay where student.start has wider layers than student.width: by how much the loss
    would change without each (Molchanov et al. 2019), or by its variance and the weights behind it."""
    int8: Literal["none", "after", "aware"] = "none"
    """Weights as whole numbers of 8 bits, each unit's with a scale of its own: rounded after the last round, or in
    every update's forward pass (quantisation-aware, Jacob et al. 2018)."""

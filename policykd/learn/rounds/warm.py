"""A warm start: a student that another run made gives the members their first weights (docs/methods/warm_start.md).

Where a member is narrower, units are removed by what the first labelled states say (docs/methods/compress.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from policykd.compress.prune import Labelled, Net, pruned
from policykd.learn.setup.started import open_start, refuse_unfit_layers
from policykd.loss.losses import Loss
from policykd.students.family import Family
from policykd.students.transplant import plant, plant_log_std, refitted

if TYPE_CHECKING:
    from policykd.learn.rounds.states import LearningState


def begin_from(state: LearningState, inputs: Tensor, params: Tensor) -> None:
    """Gives every member its first weights, once the first labelled states, inputs [M, O] and params [M, P], are there:
    by them the normaliser was measured. Nothing is done where no student is named to start from."""
    config, family = state.session.config, state.family
    old = open_start(config)
    if old is None:
        return
    refuse_unfit_layers(config, old)  # for widths that were `auto`
    assert isinstance(family, Family) and state.normaliser is not None
    found = refitted(old, state.session.view.packing, family.distribution, state.normaliser)
    layers = tuple((weight.to(family.device), bias.to(family.device)) for weight, bias in found)
    plant_log_std(family, old)
    seen = Labelled(inputs, params, family.distribution, Loss(masked=state.session.teacher.masked))
    for index, spec in enumerate(family.specs):
        own = layers
        if config.compress.prune != "none":
            net = Net(layers, family.member_log_std(index), family.activation)
            own = pruned(net, spec.width, seen, config.compress.prune)
        plant(family, index, own)

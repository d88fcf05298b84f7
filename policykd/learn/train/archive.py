"""A stable-baselines3 zip that is small, portable and equal for equal weights.

`model.save` writes the optimizer's moments, the last observations, the host's kernel and clock times. The zip made
here opens with the same `Algo.load` and holds none of them: fresh optimizers, fixed entry times, no addresses.
"""

from __future__ import annotations

import copy
import io
import re
import zipfile
from typing import Any

_RUNTIME_STATE = frozenset(
    {
        "_last_obs",
        "_last_episode_starts",
        "_last_original_obs",
        "ep_info_buffer",
        "ep_success_buffer",
        "start_time",
        "tensorboard_log",
        "weights",  # ARS: a pickled tensor; `policy.pth` holds the same numbers
    }
)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first time that a zip entry can hold


def portable_zip(model: Any) -> bytes:
    """The bytes of a zip that `type(model).load` opens, with the model's weights and hyper-parameters."""
    import stable_baselines3
    from stable_baselines3.common.save_util import data_to_json

    state_dicts, variables = model._get_torch_save_params()
    entries = {"data": _ADDRESS.sub(" at 0x0", data_to_json(_settings(model, [*state_dicts, *variables]))).encode()}
    if variables:
        entries["pytorch_variables.pth"] = _torch_bytes({name: _to_cpu(_attribute(model, name)) for name in variables})
    for name, state in model.get_parameters().items():
        is_optimizer = name.split(".")[-1].endswith("optimizer")
        entries[f"{name}.pth"] = _torch_bytes(_fresh(state, model) if is_optimizer else _to_cpu(state))
    entries["_stable_baselines3_version"] = stable_baselines3.__version__.encode()
    return zip_bytes(entries)


def _settings(model: Any, torch_names: list[str]) -> dict[str, Any]:
    """The constructor-level attributes of `model`: what is left without tensors, buffers, environments and clocks."""
    left_out = _RUNTIME_STATE | set(model._excluded_save_params()) | {name.split(".")[0] for name in torch_names}
    data = {key: value for key, value in vars(model).items() if key not in left_out}
    for key in ("observation_space", "action_space"):
        data[key] = _without_generator(data[key])
    # learn() multiplies the noise by the number of environments; left so, training could go on with no other number
    data["action_noise"] = getattr(model.action_noise, "base_noise", model.action_noise)
    return data


def _without_generator(space: Any) -> Any:
    """A copy of the space that has not drawn a random number: its generator's state is not part of a teacher."""
    fresh = copy.deepcopy(space)
    parts = getattr(fresh, "spaces", [])
    for sub in [fresh, *(parts.values() if hasattr(parts, "values") else parts)]:
        sub._np_random = None
        sub._np_random_seed = None
    return fresh


def _fresh(optimizer_state: dict[str, Any], model: Any) -> dict[str, Any]:
    """The state of an optimizer that has not stepped: no moments, and the first learning rate of the schedule."""
    groups = [{**group, "lr": float(model.lr_schedule(1.0))} for group in optimizer_state["param_groups"]]
    return {"state": {}, "param_groups": groups}


def _attribute(model: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        model = getattr(model, name)
    return model


def _to_cpu(value: Any) -> Any:
    """`value` with every tensor on the CPU and outside the graph; containers keep their type and order."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone().requires_grad_(value.requires_grad)
    if isinstance(value, dict):
        return type(value)((key, _to_cpu(item)) for key, item in value.items())
    return value


def _torch_bytes(value: Any) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def zip_bytes(entries: dict[str, bytes]) -> bytes:
    """A zip of these members, compressed, with fixed times: equal entries give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name, _EARLIEST)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # otherwise it depends on the platform that writes
            info.external_attr = 0o644 << 16
            archive.writestr(info, content, compresslevel=9)
    return buffer.getvalue()

"""Running a graph that was checked: ONNX Runtime on the CPU, one thread, nothing sent anywhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policykd.spine.errors import InputError


@dataclass(frozen=True)
class OnnxRun:
    """Observations to outputs. `rows`: at most so many observations are run at once, a power of four (1 for a file
    whose batch is fixed); only powers of four are run, whose sizes were checked. `widths`: entries of each output; one
    without a batch (a constant log_std) is repeated."""

    session: Any
    name: str
    input: str
    dtype: np.dtype[Any]
    outputs: tuple[str, ...]
    widths: tuple[int, ...]
    rows: int
    device: torch.device

    def __call__(self, observation: Tensor) -> Tensor:
        """Outputs [B, M] side by side, float32, for observations [B, *shape]; InputError where the file fails."""
        values = np.ascontiguousarray(observation.cpu().numpy().astype(self.dtype, copy=False))
        parts, at = [], 0
        while at < len(values):
            count = min(self.rows, 4 ** (((len(values) - at).bit_length() - 1) // 2))
            parts.append(self._run(values[at : at + count]))
            at += count
        joined = np.concatenate(parts) if parts else np.zeros((0, sum(self.widths)), np.float32)
        return torch.from_numpy(joined).to(self.device)

    def to(self, device: torch.device) -> OnnxRun:
        """The same session, which stays on the CPU; its outputs are moved."""
        return replace(self, device=device)

    def _run(self, values: np.ndarray) -> np.ndarray:
        try:
            found = self.session.run(list(self.outputs), {self.input: values})
            columns = [
                np.broadcast_to(np.asarray(part, np.float32).reshape(-1, width), (len(values), width))
                for part, width in zip(found, self.widths, strict=True)
            ]
        except Exception as error:  # ONNX Runtime's exceptions have no base of their own
            raise InputError(
                f"{self.name}: cannot be run on {len(values)} observations ({' '.join(str(error).split())[:160]}); "
                "export the policy again"
            ) from error
        return np.concatenate(columns, -1)


def open_session(data: bytes, name: str) -> Any:
    """An onnxruntime.InferenceSession for checked bytes; InputError where it cannot run them."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # fatal only: what is wrong is said in one line of ours
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no base of their own
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{name}: ONNX Runtime cannot open it ({reason}); export the policy again") from error

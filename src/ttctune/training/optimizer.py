"""AdamW over named groups, and its state as named tensors."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ttctune.training.stage import Group

_STATE = ("step", "exp_avg", "exp_avg_sq")


class Optimizer:
    """AdamW with a loss scale for float16; matrices decay, vectors do not.

    Args:
        groups: What is trained.
        scaled: Whether gradients are scaled (float16).
        device: Kind of device, "cpu", "cuda" or "mps".
    """

    def __init__(self, groups: Sequence[Group], scaled: bool, device: str) -> None:
        self._named: list[tuple[str, nn.Parameter]] = []
        settings = []
        for group in groups:
            for matrices in (True, False):
                part = [(n, p) for n, p in group.parameters.items() if (p.ndim > 1) == matrices]
                if part:
                    decay = group.decay if matrices else 0.0
                    parameters = [p for _, p in part]
                    settings.append({"params": parameters, "weight_decay": decay, "of": group.name, "peak": group.rate})
                    self._named += part
        self._adamw = torch.optim.AdamW(settings, fused=True)
        self.scaler = torch.amp.GradScaler(device, enabled=scaled)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Everything that is trained."""
        return [p for _, p in self._named]

    @property
    def rates(self) -> dict[str, float]:
        """Group -> present learning rate."""
        return {settings["of"]: float(settings["lr"]) for settings in self._adamw.param_groups}

    def set_share(self, share: float) -> None:
        """Put every learning rate at this share of its peak."""
        for settings in self._adamw.param_groups:
            settings["lr"] = settings["peak"] * share

    def gradients(self) -> list[Tensor]:
        """The gradient of every parameter; zeros where no image has reached it."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [p.grad for p in self.parameters if p.grad is not None]

    def step(self, clip: float) -> None:
        """Update from the gradients, whose norm is first cut to `clip` (0: not cut), and forget them."""
        self.scaler.unscale_(self._adamw)
        if clip:
            nn.utils.clip_grad_norm_(self.parameters, clip)
        self.scaler.step(self._adamw)
        self.scaler.update()
        self.forget()

    def forget(self) -> None:
        """Drop the gradients."""
        self._adamw.zero_grad()

    def tensors(self) -> dict[str, Tensor]:
        """The state by name, for a checkpoint."""
        named = {
            f"{name}/{key}": value for name, parameter in self._named for key, value in self._state(parameter).items()
        }
        scale = {f"scaler/{key}": torch.tensor(value) for key, value in self.scaler.state_dict().items()}
        return named | scale

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up the state that `tensors` gave."""
        for name, parameter in self._named:
            self._adamw.state[parameter] = {
                key: tensors[f"{name}/{key}"].clone().to(parameter.device) for key in _STATE
            }
        if self.scaler.is_enabled():
            self.scaler.load_state_dict({key: tensors[f"scaler/{key}"].item() for key in self.scaler.state_dict()})

    def _state(self, parameter: nn.Parameter) -> Mapping[str, Tensor]:
        state: Mapping[str, Tensor] = self._adamw.state[parameter]
        return state

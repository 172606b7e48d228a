"""A2F in plain PyTorch, the reference for the benchmarks of speed."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from a2f_jax.models.a2f import A2F, HALF_RANGE, HIDDEN, RGB_MEAN, Params


class TorchA2F(nn.Module):
    """A2F with weight normalization: `[N, 3, H, W]` → `[N, 3, scale · H, scale · W]`, RGB on 0..255."""

    def __init__(self, network: A2F):
        super().__init__()

        def conv(fan_in: int, features: int) -> nn.Module:
            return nn.utils.parametrizations.weight_norm(nn.Conv2d(fan_in, features, 3, padding=1))

        n, sub_pixels = network.features, 3 * network.scale**2
        self.scale = network.scale
        self.head, self.tail, self.skip = conv(3, n), conv(n, sub_pixels), conv(3, sub_pixels)
        self.expand = nn.ModuleList([conv(n, HIDDEN) for _ in range(network.blocks)])
        self.reduce = nn.ModuleList([conv(HIDDEN, n) for _ in range(network.blocks)])
        self.projection = nn.ModuleList([nn.Conv2d(n * (i + 1), n, 1, bias=False) for i in range(network.blocks)])
        self.squeeze = nn.ModuleList([nn.Conv2d(n, n, 1) for _ in range(network.blocks)])
        self.excite = nn.ModuleList([nn.Conv2d(n, n, 1) for _ in range(network.blocks)])
        self.weights = nn.Parameter(torch.ones(network.blocks, 3))
        self.register_buffer("mean", torch.from_numpy(RGB_MEAN.reshape(1, 3, 1, 1)))

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        """Upscales a batch of RGB images on 0..255, `[N, 3, H, W]`."""
        x = (lr - self.mean) / HALF_RANGE
        states = [self.head(x)]
        for i, (w_x, w_res, w_aux) in enumerate(self.weights):
            p = self.projection[i](torch.cat(states, 1))
            attention = functional.relu(self.squeeze[i](p.mean((2, 3), keepdim=True)))
            p = torch.sigmoid(self.excite[i](attention)) * p
            res = self.reduce[i](functional.relu(self.expand[i](states[-1])))
            states.append(w_x * states[-1] + w_res * res + w_aux * p)
        sr = functional.pixel_shuffle(self.tail(states[-1]), self.scale) + functional.pixel_shuffle(
            self.skip(x), self.scale
        )
        return sr * HALF_RANGE + self.mean

    @torch.no_grad()
    def take(self, params: Params) -> "TorchA2F":
        """Copies the parameters of an `A2F` network into this module, and returns the module."""

        def put(target: torch.Tensor, value) -> None:
            target.copy_(torch.from_numpy(np.array(value, np.float32)).reshape(target.shape))

        def convolution(module: nn.Module, ours: Params) -> None:
            put(module.parametrizations.weight.original0, ours["g"])
            put(module.parametrizations.weight.original1, np.transpose(ours["v"], (3, 2, 0, 1)))
            put(module.bias, ours["bias"])

        def pointwise(module: nn.Module, ours: Params) -> None:
            put(module.weight, np.transpose(ours["kernel"]))
            if "bias" in ours:
                put(module.bias, ours["bias"])

        for name in ("head", "tail", "skip"):
            convolution(getattr(self, name), params[name])
        for i in range(len(self.weights)):
            block = params[f"block_{i:02d}"]
            convolution(self.expand[i], block["expand"])
            convolution(self.reduce[i], block["reduce"])
            pointwise(self.projection[i], block["projection"])
            pointwise(self.squeeze[i], block["attention"]["squeeze"])
            pointwise(self.excite[i], block["attention"]["excite"])
            put(self.weights[i], [block["lambda_x"], block["lambda_res"], block["lambda_aux"]])
        return self

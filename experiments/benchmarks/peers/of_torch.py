"""PyTorch: eager and compiled, in the default layout and, for images, with the channels last.

The fused optimizers are PyTorch's fastest, also on a CPU; gradients are set to None between steps.
`compiled` compiles the model and the loss, as the documentation of `torch.compile` advises.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from experiments.benchmarks.peers.work import (
    B2,
    BLOCKS,
    CLIP_NORM,
    DEPTH,
    EMBEDDED,
    FEATURES,
    HEADS,
    HIDDEN,
    LENGTH,
    LR,
    VOCABULARY,
    WEIGHT_DECAY,
    WIDTH,
    Work,
)


def _mlp(*sizes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for i, o in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(i, o), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(7 * 7 * 64, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def _deep() -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(DEPTH):
        layers += [nn.Linear(WIDTH, WIDTH, bias=False), nn.BatchNorm1d(WIDTH), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 10))


class Block(nn.Module):
    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        norm, linear = partial(nn.LayerNorm, bias=False), partial(nn.Linear, bias=False)
        self.attention_norm, self.mlp_norm = norm(features), norm(features)
        self.qkv, self.out = linear(features, 3 * features), linear(features, features)
        self.up, self.down = linear(features, 4 * features), linear(4 * features, features)

    def forward(self, x):
        b, t, e = x.shape
        parts = self.qkv(self.attention_norm(x)).split(e, dim=2)
        q, k, v = (h.view(b, t, self.heads, e // self.heads).transpose(1, 2) for h in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, e))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x))))


class GPT(nn.Module):
    """GPT-2 without biases, as nanoGPT's configurations are."""

    def __init__(self, vocabulary: int, length: int, features: int, heads: int, blocks: int):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, features)
        self.positions = nn.Embedding(length, features)
        self.blocks = nn.ModuleList(Block(features, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(features, bias=False)
        self.head = nn.Linear(features, vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        for p in self.parameters():
            if p.dim() >= 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, x):
        h = self.tokens(x) + self.positions(torch.arange(x.shape[1], device=x.device))
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


class LSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, EMBEDDED)
        self.lstm = nn.LSTM(EMBEDDED, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, x):
        return self.head(self.lstm(self.table(x))[0])


class ResNetBlock(nn.Module):
    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(i, o, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(o, o, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(o), nn.BatchNorm2d(o)
        around = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))
        self.shortcut = nn.Identity() if i == o and stride == 1 else around

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def _resnet() -> nn.Module:
    layers = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    i = 64
    for o, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [ResNetBlock(i, o, stride), ResNetBlock(o, o, 1)]
        i = o
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "tiny": lambda: _mlp(2, 16, 2),
    "mlp": lambda: _mlp(784, 512, 256, 10),
    "cnn": _cnn,
    "gpt": lambda: GPT(VOCABULARY, LENGTH, FEATURES, HEADS, BLOCKS),
    "deep": _deep,
    "stacked": _deep,
    "lstm": LSTM,
    "resnet": _resnet,
}


def _norm_gelu(params: Any, x: Any, y: Any) -> Any:
    return (F.gelu(F.layer_norm(x, (512,), *params)) * y).sum()


def _cross_entropy(params: Any, x: Any, y: Any) -> Any:
    return F.cross_entropy(x, y)


FUNCTIONS: dict[str, tuple[Callable, Callable[[], list]]] = {
    "norm_gelu": (_norm_gelu, lambda: [torch.ones(512), torch.zeros(512)]),
    "cross_entropy": (_cross_entropy, list),
}


def _optimizer(work: Work, model: nn.Module) -> torch.optim.Optimizer:
    if not work.adamw:
        return torch.optim.Adam(model.parameters(), lr=LR, fused=True)
    return adamw(model)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """Decays matrices and tables alone."""
    params = list(model.parameters())
    groups = [
        {"params": [p for p in params if p.dim() >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in params if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=LR, betas=(0.9, B2), fused=True)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _tensors(work: Work) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The batches, with images as (batch, channels, height, width) and labels of 64 bits."""

    def tensor(a: Any) -> torch.Tensor:
        t = torch.from_numpy(a).to(_device())
        t = t.permute(0, 3, 1, 2).contiguous() if t.dim() == 4 else t
        return t if t.is_floating_point() else t.long()

    return [(tensor(x), tensor(y)) for x, y in work.batches()]


def _trained(work: Work, layout: torch.memory_format, compiling: Callable) -> Callable:
    torch.manual_seed(0)
    model: Any = MODELS[work.name]().to(_device())
    batches = _tensors(work)
    if batches[0][0].dim() == 4:
        model = model.to(memory_format=layout)
        batches = [(x.contiguous(memory_format=layout), y) for x, y in batches]
    optimizer = _optimizer(work, model)

    @compiling
    def mean_loss(x, y):
        return F.cross_entropy(model(x).flatten(0, -2), y.flatten())

    def steps(n: int) -> None:
        for i in range(n):
            loss = mean_loss(*batches[i % len(batches)])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if work.adamw:
                torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()
        _wait()

    return steps


def _differentiated(work: Work, compiling: Callable) -> Callable:
    function, params = FUNCTIONS[work.name]
    [(x, y)] = _tensors(work)
    leaves = [x.requires_grad_(), *(p.to(_device()).requires_grad_() for p in params())]
    function = compiling(function)

    def steps(n: int) -> None:
        for _ in range(n):
            torch.autograd.grad(function(leaves[1:], leaves[0], y), leaves)
        _wait()

    return steps


def _made(work: Work, layout: torch.memory_format, compiling: Callable) -> Callable:
    if work.is_function:
        return _differentiated(work, compiling)
    return _trained(work, layout, compiling)


def eager(work: Work) -> Callable:
    return _made(work, torch.contiguous_format, lambda f: f)


def compiled(work: Work) -> Callable:
    return _made(work, torch.contiguous_format, torch.compile)


def channels_last(work: Work) -> Callable:
    return _made(work, torch.channels_last, lambda f: f)


def channels_last_compiled(work: Work) -> Callable:
    return _made(work, torch.channels_last, torch.compile)

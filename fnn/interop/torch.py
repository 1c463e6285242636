"""Rules for the layers of torch.nn, for `interop.conversion`.

Each function takes the name of a module in torch ('' for the module itself) and the path of its
parameters in fnn, such as 'blocks/0/mlp/up' ('' for the root), and returns rules. The rules of a
model are those of its layers, concatenated.
"""

import numpy as np

from fnn.interop import layouts
from fnn.interop.rules import Layout, Rule


def leaf(name: str, path: str, layout: Layout = layouts.same) -> Rule:
    """The rule for a single parameter.

    >>> leaf('cls', 'class').fnn
    ('params/class',)
    """
    return Rule((name,), (f"params/{path}",), layout)


def linear(name: str, path: str, *, bias: bool = True) -> list[Rule]:
    """torch.nn.Linear as `linear`.

    >>> [rule.torch for rule in linear('fc', 'head')]
    [('fc.weight',), ('fc.bias',)]
    """
    return _weight_and_bias(name, path, "kernel", layouts.transposed, bias)


def conv(name: str, path: str, *, bias: bool = True) -> list[Rule]:
    """torch.nn.Conv1d, Conv2d and Conv3d as `conv` (also with groups) or `depthwise_conv`.

    >>> conv('stem', 'stem', bias=False)[0].fnn
    ('params/stem/kernel',)
    """
    return _weight_and_bias(name, path, "kernel", layouts.conv_kernel, bias)


def conv_transpose(name: str, path: str, *, groups: int = 1, bias: bool = True) -> list[Rule]:
    """torch.nn.ConvTranspose1d, 2d and 3d as `conv_transpose`."""
    return _weight_and_bias(name, path, "kernel", layouts.conv_transpose_kernel(groups), bias)


def bilinear(name: str, path: str, *, bias: bool = True) -> list[Rule]:
    """torch.nn.Bilinear as `bilinear`."""
    return _weight_and_bias(name, path, "kernel", layouts.bilinear_kernel, bias)


def norm(name: str, path: str, *, bias: bool = True) -> list[Rule]:
    """torch.nn.LayerNorm, GroupNorm, InstanceNorm and RMSNorm (bias=False) as fnn's.

    >>> norm('ln', 'norm')[0].fnn
    ('params/norm/scale',)
    """
    return _weight_and_bias(name, path, "scale", layouts.same, bias)


def batch_norm(name: str, path: str) -> list[Rule]:
    """torch.nn.BatchNorm1d, 2d and 3d as `batch_norm`, with the running statistics.

    Evaluations agree; in training, torch's running variance is the unbiased estimate, and its
    momentum is 1 - decay. Its count of batches, used with momentum=None only, is written as 0.

    >>> [rule.fnn for rule in batch_norm('bn', 'norm')][2]
    ('state/norm/mean',)
    """
    count = _dot(name, "num_batches_tracked")
    return [
        *norm(name, path),
        Rule((_dot(name, "running_mean"),), (_slash("state", path, "mean"),), layouts.same),
        Rule((_dot(name, "running_var"),), (_slash("state", path, "var"),), layouts.same),
        Rule((count,), (), layouts.constant(np.int64(0)), optional=(count,)),
    ]


def embedding(name: str, path: str) -> list[Rule]:
    """torch.nn.Embedding as `embedding`."""
    return [leaf(_dot(name, "weight"), _slash(path, "table"))]


def prelu(name: str, path: str) -> list[Rule]:
    """torch.nn.PReLU as `prelu`."""
    return [leaf(_dot(name, "weight"), _slash(path, "slope"))]


def rnn(name: str, path: str, *, layer: int = 0, reverse: bool = False) -> list[Rule]:
    """One direction of one layer of torch.nn.RNN as `rnn`.

    torch's second bias is redundant: it is added to the first, and written as 0.

    >>> rnn('', '', reverse=True)[0].torch
    ('weight_ih_l0_reverse',)
    """
    *kernels, biases = gru(name, path, layer=layer, reverse=reverse)
    return [*kernels, biases._replace(fnn=biases.fnn[:1], layout=layouts.recurrent_biases)]


def lstm(name: str, path: str, *, layer: int = 0, reverse: bool = False) -> list[Rule]:
    """One direction of one layer of torch.nn.LSTM as `lstm`, with gates in the same order."""
    return rnn(name, path, layer=layer, reverse=reverse)


def gru(name: str, path: str, *, layer: int = 0, reverse: bool = False) -> list[Rule]:
    """One direction of one layer of torch.nn.GRU as `gru`, with gates in the same order.

    >>> gru('', '')[-1].fnn
    ('params/input/bias', 'params/hidden/bias')
    """
    end = f"l{layer}{'_reverse' * reverse}"
    parts = {f"ih_{end}": "input", f"hh_{end}": "hidden"}
    biases = Rule(
        tuple(_dot(name, f"bias_{theirs}") for theirs in parts),
        tuple(_slash("params", path, ours, "bias") for ours in parts.values()),
        layouts.gru_biases,
    )
    kernels = [
        leaf(_dot(name, f"weight_{theirs}"), _slash(path, ours, "kernel"), layouts.transposed)
        for theirs, ours in parts.items()
    ]
    return [*kernels, biases]


def multi_head_attention(name: str, path: str, *, bias: bool = True) -> list[Rule]:
    """torch.nn.MultiheadAttention as `multi_head_attention`: joint query, key and value kernels.

    >>> multi_head_attention('', '')[0].torch
    ('in_proj_weight',)
    """
    layout = layouts.concatenated(layouts.into_heads, 0)
    kernels = Rule((_dot(name, "in_proj_weight"),), projections(path, "kernel"), layout)
    return [kernels, *_after_kernels(name, path, bias)]


def memory_attention(name: str, path: str, *, bias: bool = True) -> list[Rule]:
    """torch.nn.MultiheadAttention with kdim and vdim: separate query, key and value kernels."""
    names = [_dot(name, f"{letter}_proj_weight") for letter in "qkv"]
    kernels = [
        Rule((n,), (p,), layouts.into_heads)
        for n, p in zip(names, projections(path, "kernel"), strict=True)
    ]
    return [*kernels, *_after_kernels(name, path, bias)]


def attention_in(names: dict[str, str], path: str, *, bias: bool = True) -> list[Rule]:
    """Three torch.nn.Linear as the queries, keys and values of `multi_head_attention`.

    Args:
      names: of the modules, by 'query', 'key' and 'value'.

    >>> attention_in({'query': 'q', 'key': 'k', 'value': 'v'}, 'attention')[1].torch
    ('q.bias',)
    """
    rules = []
    for part, name in names.items():
        rules.append(leaf(f"{name}.weight", _slash(path, part, "kernel"), layouts.into_heads))
        if bias:
            rules.append(leaf(f"{name}.bias", _slash(path, part, "bias"), layouts.flat))
    return rules


def attention_out(name: str, path: str, *, bias: bool = True) -> list[Rule]:
    """A torch.nn.Linear as the output projection of `multi_head_attention`."""
    return _weight_and_bias(name, _slash(path, "out"), "kernel", layouts.from_heads, bias)


def projections(path: str, leaf: str) -> tuple[str, ...]:
    """The paths of the queries', keys' and values' kernels or biases."""
    return tuple(_slash("params", path, part, leaf) for part in ("query", "key", "value"))


def _after_kernels(name: str, path: str, bias: bool) -> list[Rule]:
    layout = layouts.concatenated(layouts.flat, 0)
    biases = Rule((_dot(name, "in_proj_bias"),), projections(path, "bias"), layout)
    return [*attention_out(_dot(name, "out_proj"), path, bias=bias), *[biases] * bias]


def _weight_and_bias(name: str, path: str, weight: str, layout: Layout, bias: bool) -> list[Rule]:
    rules = [leaf(_dot(name, "weight"), _slash(path, weight), layout)]
    return [*rules, leaf(_dot(name, "bias"), _slash(path, "bias"))] if bias else rules


def _dot(*parts: str) -> str:
    return ".".join(filter(None, parts))


def _slash(*parts: str) -> str:
    return "/".join(filter(None, parts))

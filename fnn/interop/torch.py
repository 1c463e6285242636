"""The rules of torch.nn's layers, for `interop.conversion`: names, and how weights lie in memory.

Each function takes the name of a module in torch ('' for the module itself) and the path of its
parameters in fnn, such as 'blocks/0/mlp/up' ('' for the whole), and returns rules. A table for a
model is the rules of its layers, one after another.
"""

import numpy as np

from fnn.interop import layouts
from fnn.interop.layouts import concatenated
from fnn.interop.rules import Layout, Rule


def leaf(name: str, path: str, layout: Layout = layouts.same) -> Rule:
    """A single parameter: a rule for what is no layer.

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
    """torch.nn.Conv1d, Conv2d and Conv3d as `conv`, also with groups, and as `depthwise_conv`.

    >>> conv('stem', 'stem', bias=False)[0].fnn
    ('params/stem/kernel',)
    """
    return _weight_and_bias(name, path, "kernel", layouts.window_first, bias)


def conv_transpose(name: str, path: str, *, groups: int = 1, bias: bool = True) -> list[Rule]:
    """torch.nn.ConvTranspose1d, 2d and 3d as `conv_transpose`.

    >>> len(conv_transpose('up', 'up'))
    2
    """
    return _weight_and_bias(name, path, "kernel", layouts.stamps_first(groups), bias)


def bilinear(name: str, path: str, *, bias: bool = True) -> list[Rule]:
    """torch.nn.Bilinear as `bilinear`.

    >>> len(bilinear('', ''))
    2
    """
    return _weight_and_bias(name, path, "kernel", layouts.first_axis_last, bias)


def norm(name: str, path: str, *, bias: bool = True) -> list[Rule]:
    """torch.nn.LayerNorm, GroupNorm, InstanceNorm and RMSNorm (bias=False) as ours.

    >>> norm('ln', 'norm')[0].fnn
    ('params/norm/scale',)
    """
    return _weight_and_bias(name, path, "scale", layouts.same, bias)


def batch_norm(name: str, path: str) -> list[Rule]:
    """torch.nn.BatchNorm1d, 2d and 3d as `batch_norm`, with the running statistics.

    torch's running variance is the unbiased one, ours the biased: in evaluation the same numbers
    are used, in training they move to others. Its momentum is 1 - decay. Its count of batches,
    which it needs for a momentum of None alone, is not kept, and written as 0.

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
    """torch.nn.Embedding as `embedding`.

    >>> embedding('wte', 'tokens')[0].fnn
    ('params/tokens/table',)
    """
    return [Rule((_dot(name, "weight"),), (_slash("params", path, "table"),), layouts.same)]


def prelu(name: str, path: str) -> list[Rule]:
    """torch.nn.PReLU as `prelu`.

    >>> prelu('act', 'act')[0].fnn
    ('params/act/slope',)
    """
    return [Rule((_dot(name, "weight"),), (_slash("params", path, "slope"),), layouts.same)]


def rnn(name: str, path: str, *, layer: int = 0, reverse: bool = False) -> list[Rule]:
    """One layer of torch.nn.RNN in one direction as `rnn`.

    torch's second bias is redundant: the two are added, and it is written as 0.

    >>> rnn('', '', reverse=True)[0].torch
    ('weight_ih_l0_reverse',)
    """
    first, second = _biases(name, layer, reverse)
    path_of_bias = (_slash("params", path, "input/bias"),)
    return [
        *_recurrent_kernels(name, path, layer, reverse),
        Rule((first, second), path_of_bias, layouts.summed),
    ]


def lstm(name: str, path: str, *, layer: int = 0, reverse: bool = False) -> list[Rule]:
    """One layer of torch.nn.LSTM in one direction as `lstm`, whose gates have the same order.

    >>> lstm('', '')[0].fnn
    ('params/input/kernel',)
    """
    return rnn(name, path, layer=layer, reverse=reverse)


def gru(name: str, path: str, *, layer: int = 0, reverse: bool = False) -> list[Rule]:
    """One layer of torch.nn.GRU in one direction as `gru`, whose gates have the same order.

    >>> gru('', '')[-1].fnn
    ('params/input/bias', 'params/hidden/bias')
    """
    paths = (_slash("params", path, "input/bias"), _slash("params", path, "hidden/bias"))
    return [
        *_recurrent_kernels(name, path, layer, reverse),
        Rule(_biases(name, layer, reverse), paths, layouts.summed_but_last),
    ]


def multi_head_attention(name: str, path: str, *, bias: bool = True) -> list[Rule]:
    """torch.nn.MultiheadAttention as `multi_head_attention`: queries, keys, values side by side.

    >>> multi_head_attention('', '')[0].torch
    ('in_proj_weight',)
    """
    kernels, biases = projections(path, "kernel"), projections(path, "bias")
    rules = [
        Rule((_dot(name, "in_proj_weight"),), kernels, concatenated(layouts.into_heads, 0)),
        *attention_out(_dot(name, "out_proj"), path, bias=bias),
    ]
    together = Rule((_dot(name, "in_proj_bias"),), biases, concatenated(layouts.flat, 0))
    return [*rules, together] if bias else rules


def memory_attention(name: str, path: str, *, bias: bool = True) -> list[Rule]:
    """The same to a memory of other features (kdim and vdim), with three matrices.

    >>> memory_attention('', '')[0].torch
    ('q_proj_weight',)
    """
    names = [_dot(name, f"{letter}_proj_weight") for letter in "qkv"]
    kernels = zip(names, projections(path, "kernel"), strict=True)
    rules = [Rule((n,), (p,), layouts.into_heads) for n, p in kernels]
    return [*rules, *multi_head_attention(name, path, bias=bias)[1:]]


def attention_in(names: dict[str, str], path: str, *, bias: bool = True) -> list[Rule]:
    """Three linear layers of torch as the queries, keys and values of `multi_head_attention`.

    Args:
      names: of the modules, by 'query', 'key' and 'value'.

    >>> attention_in({'query': 'q', 'key': 'k', 'value': 'v'}, 'attention')[1].torch
    ('q.bias',)
    """
    rules = []
    for part, name in names.items():
        kernel, offset = (_slash("params", path, f"{part}/{leaf}") for leaf in ("kernel", "bias"))
        rules.append(Rule((f"{name}.weight",), (kernel,), layouts.into_heads))
        if bias:
            rules.append(Rule((f"{name}.bias",), (offset,), layouts.flat))
    return rules


def attention_out(name: str, path: str, *, bias: bool = True) -> list[Rule]:
    """A linear layer of torch as the output of `multi_head_attention`.

    >>> attention_out('o', 'attention')[0].fnn
    ('params/attention/out/kernel',)
    """
    return _weight_and_bias(name, _slash(path, "out"), "kernel", layouts.from_heads, bias)


def projections(path: str, leaf: str) -> tuple[str, ...]:
    """The paths of the queries', keys' and values' kernels or biases.

    >>> projections('', 'bias')
    ('params/query/bias', 'params/key/bias', 'params/value/bias')
    """
    return tuple(_slash("params", path, f"{part}/{leaf}") for part in ("query", "key", "value"))


def _recurrent_kernels(name: str, path: str, layer: int, reverse: bool) -> list[Rule]:
    parts = {"ih": "input", "hh": "hidden"}
    return [
        Rule(
            (_dot(name, f"weight_{short}_l{layer}{'_reverse' * reverse}"),),
            (_slash("params", path, f"{part}/kernel"),),
            layouts.transposed,
        )
        for short, part in parts.items()
    ]


def _biases(name: str, layer: int, reverse: bool) -> tuple[str, str]:
    end = f"_l{layer}{'_reverse' * reverse}"
    return _dot(name, f"bias_ih{end}"), _dot(name, f"bias_hh{end}")


def _weight_and_bias(name: str, path: str, weight: str, layout: Layout, bias: bool) -> list[Rule]:
    rules = [Rule((_dot(name, "weight"),), (_slash("params", path, weight),), layout)]
    offset = Rule((_dot(name, "bias"),), (_slash("params", path, "bias"),), layouts.same)
    return [*rules, offset] if bias else rules


def _dot(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _slash(*parts: str) -> str:
    return "/".join(part for part in parts if part)

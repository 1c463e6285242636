"""GPT-2, Llama, BERT and ViT as Hugging Face transformers names them, as conversions of weights.

    names = gpt2(config);  params, _ = names.to_fnn(state_dict);  names.to_torch(params)

A config is that of the fnn model. Names of older checkpoints are read as well; written are those of
transformers 5.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from fnn import models, tree
from fnn.interop import layouts, torch
from fnn.interop.layouts import concatenated, tied
from fnn.interop.rules import Conversion, Rule, StateDict, conversion, repeat
from fnn.models.bert import BERTConfig, BERTInput
from fnn.models.gpt import GPTConfig
from fnn.models.vit import ViTConfig
from fnn.types import Model, ModelState, Params

# A linear layer of GPT-2, called Conv1D there, is (in, out) as ours.
_SIDE_BY_SIDE = {
    "weight": ("kernel", concatenated(layouts.unturned_into_heads, 1)),
    "bias": ("bias", concatenated(layouts.flat, 0)),
}


def gpt2(config: GPTConfig) -> Conversion:
    """GPT2LMHeadModel as `gpt(gpt2(...))`; names without 'transformer.' are read too.

    >>> from fnn.models.gpt import gpt2 as like_gpt2
    >>> config = like_gpt2(vocabulary=5, max_length=4, features=4, num_layers=1, num_heads=2)
    >>> x = jnp.zeros((1, 2), int)
    >>> shapes, _ = jax.eval_shape(models.gpt.gpt(config).init, jax.random.key(0), x)
    >>> params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    >>> gpt2(config).to_torch(params)['transformer.h.0.attn.c_attn.weight'].shape
    (4, 12)
    """
    block = [
        *torch.norm("h.{i}.ln_1", "blocks/{i}/attention_norm"),
        *_joined("h.{i}.attn.c_attn", "blocks/{i}/attention"),
        *_unturned("h.{i}.attn.c_proj", "blocks/{i}/attention/out", layouts.unturned_from_heads),
        *torch.norm("h.{i}.ln_2", "blocks/{i}/mlp_norm"),
        *_unturned("h.{i}.mlp.c_fc", "blocks/{i}/mlp/up", layouts.same),
        *_unturned("h.{i}.mlp.c_proj", "blocks/{i}/mlp/down", layouts.same),
    ]
    whole = [
        *torch.embedding("wpe", "positions"),
        *torch.norm("ln_f", "norm"),
        *repeat(block, config.num_layers),
    ]
    rules = [*_inside("transformer.", whole), _head("transformer.wte", config.tied)]
    if not config.tied:
        rules += torch.embedding("transformer.wte", "tokens")
    rename = partial(_with_prefix, "transformer.", ("lm_head.",))
    ignored = ("*.attn.bias", "*.attn.masked_bias")
    return _converted(models.gpt.gpt(config), _tokens(), config.scan, rules, ignored, rename)


def llama(config: GPTConfig) -> Conversion:
    """LlamaForCausalLM as `gpt(llama(...))`, tied or not.

    The rotary embedding has the pairs of Hugging Face's weights: halves.

    >>> from fnn.models.gpt import llama as like_llama
    >>> config = like_llama(vocabulary=5, max_length=4, features=4, num_layers=1, num_heads=2,
    ...                     num_kv_heads=1, hidden_features=6)
    >>> x = jnp.zeros((1, 2), int)
    >>> shapes, _ = jax.eval_shape(models.gpt.gpt(config).init, jax.random.key(0), x)
    >>> params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    >>> llama(config).to_torch(params)['model.layers.0.self_attn.k_proj.weight'].shape
    (2, 4)
    """
    at = "layers.{i}."
    parts = {name: f"{at}self_attn.{name[0]}_proj" for name in ("query", "key", "value")}
    block = [
        *torch.norm(f"{at}input_layernorm", "blocks/{i}/attention_norm", bias=False),
        *torch.attention_in(parts, "blocks/{i}/attention", bias=False),
        *torch.attention_out(f"{at}self_attn.o_proj", "blocks/{i}/attention", bias=False),
        *torch.norm(f"{at}post_attention_layernorm", "blocks/{i}/mlp_norm", bias=False),
        *torch.linear(f"{at}mlp.gate_proj", "blocks/{i}/mlp/gate", bias=False),
        *torch.linear(f"{at}mlp.up_proj", "blocks/{i}/mlp/up", bias=False),
        *torch.linear(f"{at}mlp.down_proj", "blocks/{i}/mlp/down", bias=False),
    ]
    whole = [*torch.norm("norm", "norm", bias=False), *repeat(block, config.num_layers)]
    rules = [*_inside("model.", whole), _head("model.embed_tokens", config.tied)]
    if not config.tied:
        rules += torch.embedding("model.embed_tokens", "tokens")
    rename = partial(_with_prefix, "model.", ("lm_head.",))
    ignored = ("*.rotary_emb.inv_freq",)
    return _converted(models.gpt.gpt(config), _tokens(), config.scan, rules, ignored, rename)


def bert(config: BERTConfig) -> Conversion:
    """BertModel as `bert`; the encoder of a model with heads ('bert.', 'cls.') is read too.

    >>> sizes = dict(max_length=4, features=4, num_layers=1, num_heads=2)
    >>> config = models.bert.bert_base(vocabulary=5, **sizes)
    >>> x = BERTInput(jnp.zeros((1, 2), int))
    >>> shapes, _ = jax.eval_shape(models.bert.bert(config).init, jax.random.key(0), x)
    >>> params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    >>> bert(config).to_torch(params)['pooler.dense.bias'].shape
    (4,)
    """
    rules = [*_bert_encoder(config), *torch.linear("pooler.dense", "pooler")]

    def rename(name: str) -> str:
        return _bert_name(name.removeprefix("bert."))

    ignored = ("cls.*", "classifier.*", "*position_ids")
    x = BERTInput(_tokens())
    return _converted(models.bert.bert(config), x, config.scan, rules, ignored, rename)


def masked_lm(config: BERTConfig) -> Conversion:
    """BertForMaskedLM as `masked_lm`; BertForPreTraining is read too.

    >>> sizes = dict(max_length=4, features=4, num_layers=1, num_heads=2)
    >>> config = models.bert.bert_base(vocabulary=5, **sizes)
    >>> x = BERTInput(jnp.zeros((1, 2), int))
    >>> shapes, _ = jax.eval_shape(models.bert.masked_lm(config).init, jax.random.key(0), x)
    >>> params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    >>> masked_lm(config).to_torch(params)['cls.predictions.bias'].shape
    (5,)
    """
    head, table = "cls.predictions", "bert.embeddings.word_embeddings.weight"
    encoder = _inside("bert.", _bert_encoder(config))
    tables = (table, f"{head}.decoder.weight")
    biases = (f"{head}.bias", f"{head}.decoder.bias")
    rules = [
        *(rule for rule in encoder if rule.torch != (table,)),
        Rule(tables, ("params/tokens/table",), tied(layouts.same), optional=tables[1:]),
        *torch.linear(f"{head}.transform.dense", "head/dense"),
        *torch.norm(f"{head}.transform.LayerNorm", "head/norm"),
        Rule(biases, ("params/head/bias",), tied(layouts.same), optional=biases[1:]),
    ]
    ignored = ("bert.pooler.*", "cls.seq_relationship.*", "*position_ids")
    x = BERTInput(_tokens())
    return _converted(models.bert.masked_lm(config), x, config.scan, rules, ignored, _bert_name)


def vit(config: ViTConfig, *, image: tuple[int, int, int] = (224, 224, 3)) -> Conversion:
    """ViTForImageClassification as `vit`; the names of transformers 4 are read too.

    Args:
      image: height, width and channels, of which follow the positions and the kernel of the tiles.

    >>> config = models.vit.vit_base(patch=2, features=4, num_layers=1, num_heads=2, out_features=3)
    >>> x = jnp.zeros((1, 4, 4, 1))
    >>> shapes, _ = jax.eval_shape(models.vit.vit(config).init, jax.random.key(0), x)
    >>> params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    >>> names = vit(config, image=(4, 4, 1))
    >>> names.to_torch(params)['vit.embeddings.position_embeddings'].shape
    (1, 5, 4)
    """
    at = "layers.{i}."
    parts = {name: f"{at}attention.{name[0]}_proj" for name in ("query", "key", "value")}
    block = [
        *torch.norm(f"{at}layernorm_before", "blocks/{i}/attention_norm"),
        *torch.attention_in(parts, "blocks/{i}/attention"),
        *torch.attention_out(f"{at}attention.o_proj", "blocks/{i}/attention"),
        *torch.norm(f"{at}layernorm_after", "blocks/{i}/mlp_norm"),
        *torch.linear(f"{at}mlp.fc1", "blocks/{i}/mlp/up"),
        *torch.linear(f"{at}mlp.fc2", "blocks/{i}/mlp/down"),
    ]
    whole = [
        torch.leaf("embeddings.cls_token", "class", layouts.with_ones(2)),
        torch.leaf("embeddings.position_embeddings", "positions/table", layouts.with_ones(1)),
        *torch.conv("embeddings.patch_embeddings.projection", "patch"),
        *repeat(block, config.num_layers),
        *torch.norm("layernorm", "norm"),
    ]
    rules = [*_inside("vit.", whole), *torch.linear("classifier", "head")]
    x = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    return _converted(models.vit.vit(config), x, config.scan, rules, (), _vit_name)


def _bert_encoder(config: BERTConfig) -> list[Rule]:
    at = "encoder.layer.{i}."
    parts = {name: f"{at}attention.self.{name}" for name in ("query", "key", "value")}
    block = [
        *torch.attention_in(parts, "blocks/{i}/attention"),
        *torch.attention_out(f"{at}attention.output.dense", "blocks/{i}/attention"),
        *torch.norm(f"{at}attention.output.LayerNorm", "blocks/{i}/attention_norm"),
        *torch.linear(f"{at}intermediate.dense", "blocks/{i}/mlp/up"),
        *torch.linear(f"{at}output.dense", "blocks/{i}/mlp/down"),
        *torch.norm(f"{at}output.LayerNorm", "blocks/{i}/mlp_norm"),
    ]
    return [
        *torch.embedding("embeddings.word_embeddings", "tokens"),
        *torch.embedding("embeddings.position_embeddings", "positions"),
        *torch.embedding("embeddings.token_type_embeddings", "segments"),
        *torch.norm("embeddings.LayerNorm", "embedding_norm"),
        *repeat(block, config.num_layers),
    ]


def _bert_name(name: str) -> str:
    """The first checkpoints call a norm's scale and bias gamma and beta."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


# What transformers 4 called the parts of a ViT, and what they are called now.
_VIT_NAMES = {
    r"^vit\.encoder\.layer\.": "vit.layers.",
    r"attention\.attention\.(q|k|v)(uery|ey|alue)\.": r"attention.\1_proj.",
    r"attention\.output\.dense\.": "attention.o_proj.",
    r"(\d)\.intermediate\.dense\.": r"\1.mlp.fc1.",
    r"(\d)\.output\.dense\.": r"\1.mlp.fc2.",
}


def _vit_name(name: str) -> str:
    for old, new in _VIT_NAMES.items():
        name = re.sub(old, new, name)
    return name


def _with_prefix(prefix: str, others: tuple[str, ...], name: str) -> str:
    """The name inside the whole model, for a checkpoint of the model without its head."""
    return name if name.startswith((prefix, *others)) else prefix + name


def _inside(prefix: str, rules: Sequence[Rule]) -> list[Rule]:
    return [rule._replace(torch=tuple(prefix + name for name in rule.torch)) for rule in rules]


def _unturned(name: str, path: str, kernel: Any) -> list[Rule]:
    return [
        torch.leaf(f"{name}.weight", f"{path}/kernel", kernel),
        torch.leaf(f"{name}.bias", f"{path}/bias"),
    ]


def _joined(name: str, path: str) -> list[Rule]:
    """The queries, keys and values of GPT-2, side by side."""
    return [
        Rule((f"{name}.{theirs}",), torch.projections(path, ours), layout)
        for theirs, (ours, layout) in _SIDE_BY_SIDE.items()
    ]


def _head(table: str, is_tied: bool) -> Rule:
    if not is_tied:
        return torch.linear("lm_head", "head", bias=False)[0]
    names = (f"{table}.weight", "lm_head.weight")
    return Rule(names, ("params/tokens/table",), tied(layouts.same), optional=names[1:])


def _tokens() -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, 1), jnp.int32)


def _converted(
    model: Model,
    x: Any,
    scan: bool,
    rules: Sequence[Rule],
    ignored: Sequence[str],
    rename: Callable[[str], str],
) -> Conversion:
    """The conversion of a model whose blocks are a list, or stacked along a first axis."""
    like, state = jax.eval_shape(model.init, jax.random.key(0), x)
    if not scan:
        return conversion(rules, (like, state), ignored=ignored, rename=rename)
    written = jax.eval_shape(_unstacked, like)
    listed = conversion(rules, (written, state), ignored=ignored, rename=rename)

    def to_fnn(state_dict: StateDict) -> tuple[Params, ModelState]:
        params, state = listed.to_fnn(state_dict)
        return {**params, "blocks": tree.stack(params["blocks"])}, state

    return Conversion(
        to_fnn, lambda params, model_state=(): listed.to_torch(_unstacked(params), model_state)
    )


def _unstacked(params: Params) -> Params:
    blocks = params["blocks"]
    n = len(jax.tree.leaves(blocks)[0])
    return {**params, "blocks": tree.unstack(blocks, n)}

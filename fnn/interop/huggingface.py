"""Conversions of GPT-2, Llama, BERT and ViT of Hugging Face transformers.

    names = gpt2(config);  params, _ = names.to_fnn(state_dict);  names.to_torch(params)

The config is that of the fnn model. The names of older checkpoints are read too; those of
transformers 5 are written.
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
from fnn.interop.rules import Conversion, Layout, Rule, StateDict, conversion, repeat
from fnn.models.bert import BERTConfig, BERTInput
from fnn.models.gpt import GPTConfig
from fnn.models.vit import ViTConfig
from fnn.types import Model, ModelState, Params


def gpt2(config: GPTConfig) -> Conversion:
    """GPT2LMHeadModel as `gpt(gpt2(...))`; names without 'transformer.' are read too.

    >>> from fnn.models.gpt import gpt2 as like_gpt2
    >>> config = like_gpt2(vocab_size=5, max_length=4, features=4, num_layers=1, num_heads=2)
    >>> shapes = jax.eval_shape(models.gpt.gpt(config).init, jax.random.key(0), _tokens())
    >>> params, _ = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    >>> gpt2(config).to_torch(params)['transformer.h.0.attn.c_attn.weight'].shape
    (4, 12)
    """
    block = [
        *torch.norm("h.{i}.ln_1", "blocks/{i}/attention_norm"),
        *_joined("h.{i}.attn.c_attn", "blocks/{i}/attention"),
        *_conv1d("h.{i}.attn.c_proj", "blocks/{i}/attention/out", layouts.gpt2_from_heads),
        *torch.norm("h.{i}.ln_2", "blocks/{i}/mlp_norm"),
        *_conv1d("h.{i}.mlp.c_fc", "blocks/{i}/mlp/up", layouts.same),
        *_conv1d("h.{i}.mlp.c_proj", "blocks/{i}/mlp/down", layouts.same),
    ]
    whole = [
        *torch.embedding("wpe", "positions"),
        *torch.norm("ln_f", "norm"),
        *repeat(block, config.num_layers),
    ]
    ignored = ("*.attn.bias", "*.attn.masked_bias")
    return _language_model(config, "transformer.", "wte", whole, ignored)


def llama(config: GPTConfig) -> Conversion:
    """LlamaForCausalLM as `gpt(llama(...))`, tied or not.

    The rotary embedding pairs the halves of a head, as Hugging Face's does.
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
    return _language_model(config, "model.", "embed_tokens", whole, ("*.rotary_emb.inv_freq",))


def bert(config: BERTConfig) -> Conversion:
    """BertModel as `bert`; the encoder of a model with heads ('bert.', 'cls.') is read too."""
    rules = [*_bert_encoder(config), *torch.linear("pooler.dense", "pooler")]

    def rename(name: str) -> str:
        return _bert_name(name.removeprefix("bert."))

    ignored = ("cls.*", "classifier.*", "*position_ids")
    x = BERTInput(_tokens())
    return _converted(models.bert.bert(config), x, config.scan, rules, ignored, rename)


def masked_lm(config: BERTConfig) -> Conversion:
    """BertForMaskedLM as `masked_lm`; BertForPreTraining is read too."""
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
      image: height, width and channels, which fix the shapes of positions and patch kernel.
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
        torch.leaf("embeddings.cls_token", "class", layouts.leading_ones(2)),
        torch.leaf("embeddings.position_embeddings", "positions/table", layouts.leading_ones(1)),
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
    """The name, where the first checkpoints have gamma and beta in norms."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


# From the names of transformers 4 to those of transformers 5.
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


def _with_prefix(prefix: str, name: str) -> str:
    """The name in the model with its head, for a checkpoint of one without."""
    return name if name.startswith((prefix, "lm_head.")) else prefix + name


def _inside(prefix: str, rules: Sequence[Rule]) -> list[Rule]:
    return [rule._replace(torch=tuple(prefix + name for name in rule.torch)) for rule in rules]


def _conv1d(name: str, path: str, kernel: Layout) -> list[Rule]:
    """A linear layer of GPT-2, called Conv1D there, whose kernel is (in, out)."""
    return [
        torch.leaf(f"{name}.weight", f"{path}/kernel", kernel),
        torch.leaf(f"{name}.bias", f"{path}/bias"),
    ]


def _joined(name: str, path: str) -> list[Rule]:
    """The concatenated query, key and value projections of GPT-2."""
    kernels = concatenated(layouts.gpt2_into_heads, 1)
    biases = concatenated(layouts.flat, 0)
    return [
        Rule((f"{name}.weight",), torch.projections(path, "kernel"), kernels),
        Rule((f"{name}.bias",), torch.projections(path, "bias"), biases),
    ]


def _language_model(
    config: GPTConfig, prefix: str, table: str, rules: Sequence[Rule], ignored: Sequence[str]
) -> Conversion:
    """The conversion of a GPT, from the rules of its body without the token embedding."""
    if config.tied:
        names = (f"{prefix}{table}.weight", "lm_head.weight")
        paths = ("params/tokens/table",)
        head = [Rule(names, paths, tied(layouts.same), optional=names[1:])]
    else:
        head = torch.linear("lm_head", "head", bias=False)
        head += torch.embedding(f"{prefix}{table}", "tokens")
    rules = [*_inside(prefix, rules), *head]
    rename = partial(_with_prefix, prefix)
    return _converted(models.gpt.gpt(config), _tokens(), config.scan, rules, ignored, rename)


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
    """The conversion of a model whose blocks are a list, or stacked with `scan`."""
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

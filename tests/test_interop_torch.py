"""Weights of torch and of transformers in fnn: the same outputs, the same gradients, and back."""

import warnings
from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from fnn import interop, layers, models
from fnn.interop import huggingface, layouts, torchvision
from fnn.interop import torch as of_torch

torch.set_num_threads(1)
torch.manual_seed(0)  # of the layers that are made below, before any test
transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

V, E, T, SHAPE = 11, 8, 6, (8, 4, 3)
TOKENS = np.random.default_rng(0).integers(V, size=(2, T))
LENGTHS = np.array([T, 3])
IDS = jnp.asarray(TOKENS, jnp.int32)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def shaken(module):
    """The module, with no parameter or statistic that is 0 or 1."""
    for i, (name, value) in enumerate(module.state_dict().items()):
        if value.is_floating_point():
            noise = torch.tensor(numbers(*value.shape, seed=i))
            value.copy_(value + 0.3 * (noise.abs() if "var" in name else noise))
    return module.eval()


def tensors(state_dict):
    return {name: torch.from_numpy(array) for name, array in state_dict.items()}


# Layers: (module, x, rules, fnn's function of params, state and x)
def channels_first(x):
    return np.moveaxis(x, -1, 1)


SEQUENCE, IMAGE = numbers(2, 5, 4), numbers(2, 6, 5, 4)
NO_STATE = ()


def plain(function, **options):
    return lambda params, state, x: function(params, x, **options)


def recurrent(function):
    return lambda params, state, x: function(params, x)[1]


def attention(params, state, x):
    return layers.multi_head_attention(params, x)


def conv_case(torch_class, axes, groups=1):
    module = torch_class(4, 6, (3, 2, 2)[:axes], stride=2, groups=groups)
    x = numbers(2, *(5, 6, 4)[:axes], 4)
    function = plain(layers.conv, stride=2, groups=groups, padding="VALID")
    return module, x, of_torch.conv("", ""), function


def conv_transpose_case(torch_class, axes, groups=1):
    module = torch_class(4, 6, (3, 2, 2)[:axes], stride=2, groups=groups)
    x = numbers(2, *(3, 2, 2)[:axes], 4)
    rules = of_torch.conv_transpose("", "", groups=groups)
    options = {"stride": 2, "groups": groups, "padding": "VALID"}
    return module, x, rules, plain(layers.conv_transpose, **options)


def batch_norm(params, state, x):
    return layers.batch_norm(params, state, x, train=False)[0]


IMAGES = ("conv", "batch", "group", "instance", "prelu")  # torch has their channels second
LAYERS = {
    "linear": (nn.Linear(4, 3), SEQUENCE, of_torch.linear("", ""), plain(layers.linear)),
    "conv1d": conv_case(nn.Conv1d, 1),
    "conv2d": conv_case(nn.Conv2d, 2, groups=2),
    "conv3d": conv_case(nn.Conv3d, 3),
    "conv_transpose1d": conv_transpose_case(nn.ConvTranspose1d, 1),
    "conv_transpose2d": conv_transpose_case(nn.ConvTranspose2d, 2, groups=2),
    "conv_transpose3d": conv_transpose_case(nn.ConvTranspose3d, 3),
    "batch_norm": (nn.BatchNorm2d(4), IMAGE, of_torch.batch_norm("", ""), batch_norm),
    "layer_norm": (
        nn.LayerNorm(4),
        SEQUENCE,
        of_torch.norm("", ""),
        plain(layers.layer_norm, eps=1e-5),
    ),
    "rms_norm": (
        nn.RMSNorm(4, eps=1e-5),
        SEQUENCE,
        of_torch.norm("", "", bias=False),
        plain(layers.rms_norm, eps=1e-5),
    ),
    "group_norm": (
        nn.GroupNorm(2, 4),
        IMAGE,
        of_torch.norm("", ""),
        plain(layers.group_norm, num_groups=2, eps=1e-5),
    ),
    "instance_norm": (
        nn.InstanceNorm2d(4, affine=True),
        IMAGE,
        of_torch.norm("", ""),
        plain(layers.instance_norm, eps=1e-5),
    ),
    "embedding": (nn.Embedding(V, 4), TOKENS, of_torch.embedding("", ""), plain(layers.embedding)),
    "prelu": (nn.PReLU(4), IMAGE, of_torch.prelu("", ""), plain(layers.prelu)),
    "rnn": (
        nn.RNN(4, 3, batch_first=True),
        SEQUENCE,
        of_torch.rnn("", ""),
        recurrent(layers.rnn),
    ),
    "lstm": (
        nn.LSTM(4, 3, batch_first=True),
        SEQUENCE,
        of_torch.lstm("", ""),
        recurrent(layers.lstm),
    ),
    "gru": (
        nn.GRU(4, 3, batch_first=True),
        SEQUENCE,
        of_torch.gru("", ""),
        recurrent(layers.gru),
    ),
    "multi_head_attention": (
        nn.MultiheadAttention(4, 2, batch_first=True),
        SEQUENCE,
        of_torch.multi_head_attention("", ""),
        attention,
    ),
}


def shapes_of(name, module):
    """Parameters and state of the fnn layer that is like the module, as shapes."""
    window = tuple(module.kernel_size) if name.startswith("conv") else ()
    key = jax.random.key(0)
    inits = {
        "linear": lambda: layers.linear_init(key, 4, 3),
        "conv": lambda: layers.conv_init(key, 4, 6, window, groups=module.groups),
        "batch": lambda: layers.batch_norm_init(4),
        "rms": lambda: layers.rms_norm_init(4),
        "layer": lambda: layers.layer_norm_init(4),
        "group": lambda: layers.group_norm_init(4),
        "instance": lambda: layers.instance_norm_init(4),
        "embedding": lambda: layers.embedding_init(key, V, 4),
        "prelu": lambda: layers.prelu_init(4),
        "rnn": lambda: layers.rnn_cell_init(key, 4, 3),
        "lstm": lambda: layers.lstm_cell_init(key, 4, 3),
        "gru": lambda: layers.gru_cell_init(key, 4, 3),
        "multi": lambda: layers.multi_head_attention_init(key, 4, 2),
    }
    (init,) = [init for start, init in inits.items() if name.startswith(start)]
    made = jax.eval_shape(init)
    return made if name == "batch_norm" else (made, NO_STATE)


def output_of(name, module, x):
    given = torch.tensor(channels_first(x) if name.startswith(IMAGES) else x)
    with torch.no_grad():
        y = module(given, given, given)[0] if name.startswith("multi") else module(given)
    y = (y[0] if isinstance(y, tuple) else y).numpy()
    return np.moveaxis(y, 1, -1) if name.startswith(IMAGES) else y


@cache
def of_all_layers():
    """By name: torch's output and state dict, the conversion, the weights, and fnn's output."""
    conversions, weights, expected = {}, {}, {}
    for name, (module, x, rules, _) in LAYERS.items():
        shaken(module)
        expected[name] = output_of(name, module, x)
        conversions[name] = interop.conversion(rules, shapes_of(name, module))
        weights[name] = conversions[name].to_fnn(module.state_dict())

    def outputs(weights, inputs):
        return {n: LAYERS[n][3](*weights[n], x) for n, x in inputs.items()}

    inputs = {
        n: jnp.asarray(case[1], np.int32 if n == "embedding" else None)
        for n, case in LAYERS.items()
    }
    got = jax.jit(outputs)(weights, inputs)
    return expected, conversions, weights, got


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_with_the_weights_of_torch_computes_the_same(name):
    expected, _, _, got = of_all_layers()
    # Sums of a few dozen float32 products.
    np.testing.assert_allclose(got[name], expected[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_of_torch_with_the_weights_of_fnn_computes_the_same(name):
    expected, conversions, weights, _ = of_all_layers()
    module, x, *_ = LAYERS[name]
    module.load_state_dict(tensors(conversions[name].to_torch(*weights[name])), strict=True)
    # The two biases of a recurrent layer have become one.
    np.testing.assert_allclose(output_of(name, module, x), expected[name], rtol=0, atol=2e-6)


def test_layers_of_a_deep_bidirectional_lstm_have_names_of_their_own():
    module = nn.LSTM(4, 3, num_layers=2, bidirectional=True)
    directions = {"forward": False, "backward": True}
    rules = [
        rule
        for layer in range(2)
        for name, reverse in directions.items()
        for rule in of_torch.lstm("", f"{layer}/{name}", layer=layer, reverse=reverse)
    ]
    like = [
        {name: layers.lstm_cell_init(jax.random.key(0), size, 3) for name in directions}
        for size in (4, 6)
    ]
    params, _ = interop.conversion(rules, (like, ())).to_fnn(module.state_dict())
    expected = module.weight_hh_l1_reverse.detach().numpy().T
    np.testing.assert_array_equal(params[1]["backward"]["hidden"]["kernel"], expected)


def test_attention_to_a_memory_of_other_features_has_three_matrices():
    module = nn.MultiheadAttention(4, 2, kdim=3, vdim=3)
    like = layers.multi_head_attention_init(jax.random.key(0), 4, 2, memory_features=3)
    rules = of_torch.memory_attention("", "")
    names = interop.conversion(rules, (like, ()))
    params, _ = names.to_fnn(module.state_dict())
    kernel = module.k_proj_weight.detach().numpy().reshape(2, 2, 3).transpose(2, 0, 1)
    np.testing.assert_array_equal(params["key"]["kernel"], kernel)
    module.load_state_dict(tensors(names.to_torch(params)), strict=True)


def test_a_bilinear_layer_goes_over_and_back():
    module = nn.Bilinear(2, 3, 4)
    names = interop.conversion(
        of_torch.bilinear("", ""), (layers.bilinear_init(jax.random.key(0), 2, 3, 4), ())
    )
    params, _ = names.to_fnn(module.state_dict())
    left, right = numbers(5, 2), numbers(5, 3)
    got = layers.bilinear(params, jnp.asarray(left), jnp.asarray(right))
    expected = module(torch.tensor(left), torch.tensor(right)).detach()
    np.testing.assert_allclose(got, expected, atol=1e-6)
    module.load_state_dict(tensors(names.to_torch(params)), strict=True)


# Whole models: (transformers' model, fnn's, fnn's x, the conversion, the call of transformers')
def gpt2_case():
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=V,
            n_positions=8,
            n_embd=E,
            n_layer=2,
            n_head=2,
            bos_token_id=0,
            eos_token_id=0,
            resid_pdrop=0,
            attn_pdrop=0,
            embd_pdrop=0,
        )  # fmt: skip
    )
    config = models.gpt.gpt2(vocab_size=V, max_length=8, features=E, num_layers=2, num_heads=2)
    call = partial(theirs, torch.tensor(TOKENS))
    return theirs, models.gpt.gpt(config), IDS, huggingface.gpt2(config), lambda: [call().logits]


def llama_case(tied):
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=V,
            hidden_size=E,
            intermediate_size=12,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=8,
            rms_norm_eps=1e-5,
            rope_theta=500000.0,
            tie_word_embeddings=tied,
            bos_token_id=0,
            eos_token_id=0,
        )  # fmt: skip
    )
    config = models.gpt.llama(
        vocab_size=V, max_length=8, features=E, num_layers=2, num_heads=4, num_kv_heads=2,
        hidden_features=12, tied=tied,
    )  # fmt: skip
    call = partial(theirs, torch.tensor(TOKENS))
    return theirs, models.gpt.gpt(config), IDS, huggingface.llama(config), lambda: [call().logits]


def bert_parts():
    theirs = transformers.BertConfig(
        vocab_size=V, hidden_size=E, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=12, max_position_embeddings=8, hidden_dropout_prob=0,
        attention_probs_dropout_prob=0, bos_token_id=0, eos_token_id=0,
        pad_token_id=None,  # torch gives the row of a token for padding no gradient
    )  # fmt: skip
    ours = models.bert.bert_base(
        vocab_size=V, max_length=8, features=E, num_layers=2, num_heads=2, hidden_features=12
    )
    segments = np.arange(2 * T).reshape(2, T) % 2
    x = models.bert.BERTInput(
        IDS, jnp.asarray(segments, jnp.int32), jnp.asarray(LENGTHS, jnp.int32)
    )
    inputs = {
        "input_ids": torch.tensor(TOKENS),
        "token_type_ids": torch.tensor(segments),
        "attention_mask": torch.tensor((np.arange(T) < LENGTHS[:, None]).astype(int)),
    }
    return theirs, ours, x, inputs


def bert_case():
    theirs, config, x, inputs = bert_parts()
    theirs = transformers.BertModel(theirs)

    def call():
        output = theirs(**inputs)
        return [output.last_hidden_state, output.pooler_output]

    return theirs, models.bert.bert(config), x, huggingface.bert(config), call


def masked_lm_case():
    theirs, config, x, inputs = bert_parts()
    theirs = transformers.BertForMaskedLM(theirs)
    names = huggingface.masked_lm(config)
    return theirs, models.bert.masked_lm(config), x, names, lambda: [theirs(**inputs).logits]


def vit_case():
    theirs = transformers.ViTForImageClassification(
        transformers.ViTConfig(
            hidden_size=E,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=12,
            image_size=SHAPE[:2],
            patch_size=2,
            num_labels=3,
            hidden_dropout_prob=0,
            attention_probs_dropout_prob=0,
            layer_norm_eps=1e-6,
        )  # fmt: skip
    )
    config = models.vit.vit_base(
        patch_size=2, features=E, num_layers=2, num_heads=2, hidden_features=12, out_features=3
    )
    x = numbers(2, *SHAPE)
    call = partial(theirs, torch.tensor(channels_first(x)))
    names = huggingface.vit(config, image=SHAPE)
    return theirs, models.vit.vit(config), jnp.asarray(x), names, lambda: [call().logits]


class Unit(nn.Module):
    """A residual block as torchvision's, basic with two convolutions, a bottleneck with three."""

    def __init__(self, ins, outs, stride, narrow):
        super().__init__()
        sizes = [(3, stride), (3, 1)] if narrow == 1 else [(1, 1), (3, stride), (1, 1)]
        widths = [ins, *[outs // narrow] * (len(sizes) - 1), outs]
        for i, (size, step) in enumerate(sizes, start=1):
            conv = nn.Conv2d(*widths[i - 1 : i + 1], size, step, size // 2, bias=False)
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", nn.BatchNorm2d(widths[i]))
        self.downsample = None
        if stride > 1 or ins != outs:
            around = nn.Conv2d(ins, outs, 1, stride, bias=False)
            self.downsample = nn.Sequential(around, nn.BatchNorm2d(outs))
        self.depth = len(sizes)

    def forward(self, x):
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = y.relu() if i < self.depth else y
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet(nn.Module):
    """torchvision's, with two stages."""

    def __init__(self, widths, depths, narrow):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 7, 2, 3, bias=False), nn.BatchNorm2d(4)
        ins = 4
        for s, (outs, depth) in enumerate(zip(widths, depths, strict=True), start=1):
            strides = [1 if s == 1 else 2, *[1] * (depth - 1)]
            units = [Unit(ins if i == 0 else outs, outs, n, narrow) for i, n in enumerate(strides)]
            self.add_module(f"layer{s}", nn.Sequential(*units))
            ins = outs
        self.fc = nn.Linear(ins, 3)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        return self.fc(self.layer2(self.layer1(x)).mean(dim=(2, 3)))


def resnet_case(published, widths, narrow):
    depths = (1, 2)
    theirs = ResNet(widths, depths, narrow)
    config = replace(published(3), depths=depths, widths=widths, stem_features=4)
    x = numbers(2, 12, 12, 3)
    call = partial(theirs, torch.tensor(channels_first(x)))
    return (
        theirs,
        models.resnet.resnet(config),
        jnp.asarray(x),
        torchvision.resnet(config),
        lambda: [call()],
    )


CASES = {
    "resnet, basic": partial(resnet_case, models.resnet.resnet18, (4, 8), 1),
    "resnet, bottleneck": partial(resnet_case, models.resnet.resnet50, (8, 16), 4),
    "gpt2": gpt2_case,
    "llama": partial(llama_case, False),
    "llama, tied": partial(llama_case, True),
    "bert": bert_case,
    "masked_lm": masked_lm_case,
    "vit": vit_case,
}


@cache
def case(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other libraries, while they are imported
        theirs, *rest = CASES[name]()
    return shaken(theirs), *rest


def loss_and_outputs(outputs, xp):
    """A sum in which every output has a weight of its own."""
    weights = [numbers(*y.shape, seed=5) / y.shape[-1] for y in outputs]
    return sum((xp(w) * y).sum() for w, y in zip(weights, outputs, strict=True))


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", CASES)
def test_a_model_from_elsewhere_has_the_same_outputs_and_gradients_in_fnn(name):
    theirs, model, x, names, call = case(name)
    params, state = names.to_fnn(theirs.state_dict())

    @jax.jit
    def program(params):
        def loss(params):
            outputs = jax.tree.leaves(model.apply(params, state, x)[0])
            return loss_and_outputs(outputs, jnp.asarray), outputs

        return jax.grad(loss, has_aux=True)(params)

    gradients, outputs = program(params)
    expected = call()
    loss_and_outputs(expected, torch.tensor).backward()
    for got, y in zip(outputs, expected, strict=True):
        assert y.abs().max() > 0.1
        np.testing.assert_allclose(got, y.detach(), rtol=0, atol=2e-5)
    back = names.to_torch(gradients, state)
    for parameter, value in theirs.named_parameters():
        # Keys have a bias without effect, whose gradient is 0 but for rounding.
        largest = max(value.grad.abs().max().item(), 1e-2)
        apart = np.abs(back[parameter] - value.grad.numpy()).max()
        assert apart < 1e-4 * largest, f"{parameter}: {apart:.1e} of {largest:.1e}"


@pytest.mark.parametrize("name", CASES)
def test_the_way_back_is_exact_and_complete(name):
    theirs, _, _, names, _ = case(name)
    state_dict = theirs.state_dict()
    back = names.to_torch(*names.to_fnn(state_dict))
    assert back.keys() == state_dict.keys()
    for key, value in state_dict.items():
        np.testing.assert_array_equal(back[key], value.numpy(), err_msg=key)
    theirs.load_state_dict(tensors(back), strict=True)


OLDER = {
    "gpt2": lambda name: None if name.startswith("lm_head") else name.removeprefix("transformer."),
    "llama, tied": lambda name: None if name.startswith("lm_head") else name,
    "bert": lambda name: f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma"),
    "masked_lm": lambda name: (
        None if "decoder." in name else name.replace("LayerNorm.bias", "LayerNorm.beta")
    ),
    "vit": lambda name: (
        name.replace("vit.layers.", "vit.encoder.layer.")
        .replace("q_proj", "attention.query")
        .replace("k_proj", "attention.key")
        .replace("v_proj", "attention.value")
        .replace("o_proj", "output.dense")
        .replace("mlp.fc1", "intermediate.dense")
        .replace("mlp.fc2", "output.dense")
    ),
}
BESIDE = {  # what else is in files on the web
    "gpt2": "h.0.attn.bias",
    "llama, tied": "model.layers.0.self_attn.rotary_emb.inv_freq",
    "bert": "cls.seq_relationship.weight",
    "masked_lm": "bert.pooler.dense.weight",
}


@pytest.mark.parametrize("name", OLDER)
def test_the_names_of_older_checkpoints_are_read_too(name):
    theirs, _, _, names, _ = case(name)
    state_dict = theirs.state_dict()
    older = {OLDER[name](key): value for key, value in state_dict.items()}
    older.pop(None, None)
    assert older.keys() != state_dict.keys()
    beside = {BESIDE[name]: np.zeros(1)} if name in BESIDE else {}
    got, expected = names.to_fnn({**older, **beside}), names.to_fnn(state_dict)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_scanned_blocks_hold_the_same_weights_stacked():
    theirs, _, _, names, _ = case("gpt2")
    config = models.gpt.gpt2(
        vocab_size=V, max_length=8, features=E, num_layers=2, num_heads=2, scan=True
    )
    scanned = huggingface.gpt2(config)
    stacked, _ = scanned.to_fnn(theirs.state_dict())
    listed, _ = names.to_fnn(theirs.state_dict())
    kernels = [block["mlp"]["up"]["kernel"] for block in listed["blocks"]]
    np.testing.assert_array_equal(stacked["blocks"]["mlp"]["up"]["kernel"], np.stack(kernels))
    back = scanned.to_torch(stacked)
    for key, value in theirs.state_dict().items():
        np.testing.assert_array_equal(back[key], value.numpy(), err_msg=key)


def test_bfloat16_stays_bfloat16():
    module = nn.Linear(4, 3).bfloat16()
    like = layers.linear_init(jax.random.key(0), 4, 3), ()
    params, _ = interop.conversion(of_torch.linear("", ""), like).to_fnn(module.state_dict())
    assert params["kernel"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        np.asarray(params["kernel"], np.float32), module.weight.detach().float().numpy().T
    )


def test_what_does_not_fit_is_listed_with_both_shapes():
    theirs, _, _, names, _ = case("gpt2")
    state_dict = dict(theirs.state_dict())
    del state_dict["transformer.h.0.ln_1.bias"]
    state_dict["transformer.h.1.mlp.c_fc.weight"] = np.zeros((E, 5))
    state_dict["transformer.h.1.attn.c_attn.bias"] = np.zeros(7)
    state_dict["transformer.h.2.ln_1.bias"] = np.zeros(E)
    with pytest.raises(ValueError) as error:
        names.to_fnn(state_dict)
    for line in (
        "transformer.h.0.ln_1.bias: missing, for params/blocks/0/attention_norm/bias float32[8]",
        "transformer.h.1.mlp.c_fc.weight (8, 5): does not fit params/blocks/1/mlp/up/kernel "
        "float32[8,32]",
        "transformer.h.1.attn.c_attn.bias (7,): does not fit",
        "transformer.h.2.ln_1.bias (8,): unexpected",
    ):
        assert line in str(error.value)


def test_a_residual_network_that_torchvision_does_not_have_is_refused():
    with pytest.raises(ValueError, match="torchvision has no pre-activation"):
        torchvision.resnet(models.resnet.wide_resnet(10, 1, 10))


def test_tied_weights_that_differ_are_refused():
    theirs, _, _, names, _ = case("gpt2")
    state_dict = {**theirs.state_dict(), "lm_head.weight": np.zeros((V, E), np.float32)}
    with pytest.raises(ValueError, match="lm_head.weight .* expected to be equal"):
        names.to_fnn(state_dict)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (of_torch.linear("", "", bias=False), "params/bias: no rule names it"),
        ([*of_torch.linear("", ""), of_torch.leaf("a", "b")], "params/b: no such leaf"),
        ([*of_torch.linear("", ""), of_torch.leaf("a", "bias")], "params/bias: named twice"),
    ],
)
def test_a_table_that_does_not_name_every_leaf_once_is_refused(rules, message):
    with pytest.raises(ValueError, match=message):
        interop.conversion(rules, (layers.linear_init(jax.random.key(0), 4, 3), ()))


LAYOUTS = {
    "same": (layouts.same, [(2, 3)]),
    "transposed": (layouts.transposed, [(2, 3)]),
    "conv_kernel": (layouts.conv_kernel, [(5, 6, 2, 3)]),
    "bilinear_kernel": (layouts.bilinear_kernel, [(2, 3, 4)]),
    "flat": (layouts.flat, [(2, 3)]),
    "into_heads": (layouts.into_heads, [(4, 2, 3)]),
    "from_heads": (layouts.from_heads, [(2, 3, 4)]),
    "gpt2_into_heads": (layouts.gpt2_into_heads, [(4, 2, 3)]),
    "gpt2_from_heads": (layouts.gpt2_from_heads, [(2, 3, 4)]),
    "leading_ones": (layouts.leading_ones(2), [(2, 3)]),
    "conv_transpose_kernel": (layouts.conv_transpose_kernel(2), [(5, 3, 4)]),
    "concatenated": (layouts.concatenated(layouts.into_heads, 0), [(4, 2, 3)] * 3),
    "tied": (layouts.tied(layouts.transposed), [(2, 3)]),
    "recurrent_biases": (layouts.recurrent_biases, [(4,)]),
    "gru_biases": (layouts.gru_biases, [(6,), (2,)]),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_undoes_its_way_back(name):
    layout, shapes = LAYOUTS[name]
    leaves = tuple(numbers(*shape, seed=i) for i, shape in enumerate(shapes))
    again = layout.to_fnn(layout.to_torch(leaves), tuple(shapes))
    jax.tree.map(np.testing.assert_array_equal, again, leaves)

"""Initializers beside those of JAX and torch, and presets beside torch, Flax and Keras."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from fnn import initializers, layers, nn
from fnn.initializers import presets


def key():
    return jax.random.key(0)


def same_distribution(ours, theirs):
    """Whether two samples of equal size may come from one distribution, by Kolmogorov and Smirnov.

    One honest pair in ten thousand fails; the draws are fixed.
    """
    a, b = np.sort(np.ravel(ours)), np.sort(np.ravel(theirs))
    assert a.size == b.size >= 1000
    points = np.concatenate([a, b])
    ranks = [np.searchsorted(sample, points, side="right") / sample.size for sample in (a, b)]
    return np.abs(ranks[0] - ranks[1]).max() <= math.sqrt(-math.log(1e-4 / 2) / a.size)


def of_torch(make, **names):
    torch.manual_seed(0)
    layer = make()
    return {ours: getattr(layer, theirs).detach().numpy() for ours, theirs in names.items()}


TORCH = {
    "linear": (
        presets.torch.linear(6),
        lambda: of_torch(lambda: torch.nn.Linear(6, 4000), kernel_init="weight", bias_init="bias"),
    ),
    "conv": (
        presets.torch.conv((2, 3), 4, groups=2),
        lambda: of_torch(
            lambda: torch.nn.Conv2d(4, 2000, (2, 3), groups=2),
            kernel_init="weight",
            bias_init="bias",
        ),
    ),
    "conv_transpose": (
        presets.torch.conv_transpose((2, 3), 4, groups=2),
        lambda: of_torch(
            lambda: torch.nn.ConvTranspose2d(2000, 4, (2, 3), groups=2), kernel_init="weight"
        ),
    ),
    "embedding": (
        presets.torch.embedding(),
        lambda: of_torch(lambda: torch.nn.Embedding(500, 8), table_init="weight"),
    ),
    "attention": (
        presets.torch.attention(48),
        lambda: {
            **of_torch(
                lambda: torch.nn.MultiheadAttention(48, 4),
                kernel_init="in_proj_weight",
            ),
            **of_torch(
                lambda: torch.nn.MultiheadAttention(48, 4).out_proj, out_kernel_init="weight"
            ),
        },
    ),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", TORCH)
def test_torch_presets_draw_as_torch_does(name):
    preset, draw = TORCH[name]
    for argument, theirs in draw().items():
        ours = preset[argument](key(), (theirs.size,))
        assert same_distribution(ours, theirs), argument
        if name != "embedding":  # the bounds of a uniform show in a thousand draws
            np.testing.assert_allclose(abs(ours).max(), abs(theirs).max(), rtol=0.01)


def test_torch_preset_of_attention_has_biases_of_0():
    layer = torch.nn.MultiheadAttention(8, 2)
    assert (layer.in_proj_bias == 0).all() and (layer.out_proj.bias == 0).all()
    ours = presets.torch.attention(8)["bias_init"]
    assert inspect.unwrap(ours) is inspect.unwrap(initializers.zeros)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name, gates", [("rnn", 1), ("lstm", 4), ("gru", 3)])
def test_torch_presets_of_recurrent_layers_draw_as_torch_does(name, gates):
    torch.manual_seed(0)
    hidden = 1000
    peer = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[name](2, hidden)
    kernel, recurrent, inner, outer = (weight.detach().numpy() for weight in peer.parameters())
    preset = getattr(presets.torch, name)(hidden)
    for argument, theirs in {"kernel_init": kernel, "recurrent_init": recurrent[:3]}.items():
        assert same_distribution(preset[argument](key(), (theirs.size,)), theirs)
    bias = preset["bias_init"](key(), (gates * hidden,))
    summed = gates * hidden if name != "gru" else 2 * hidden
    assert same_distribution(bias[:summed], (inner + outer)[:summed])
    if name == "gru":  # the new value's biases, inside the reset and outside
        assert same_distribution(bias[summed:], inner[summed:])
        assert same_distribution(preset["bias_init"](key(), (hidden,)), outer[summed:])


def test_torch_presets_of_norms_are_torch_s_own_arguments():
    ours = presets.torch
    assert ours.layer_norm() == {"eps": torch.nn.LayerNorm(4).eps}
    assert ours.group_norm() == {"eps": torch.nn.GroupNorm(2, 4).eps}
    norm = torch.nn.BatchNorm1d(4)
    assert ours.batch_norm() == {"eps": norm.eps, "decay": 1 - norm.momentum}
    norm = torch.nn.InstanceNorm1d(4)
    assert ours.instance_norm() == {"eps": norm.eps, "scale": norm.affine, "bias": norm.affine}
    x = torch.full((1, 4), 1e-4)
    y = nn.rms_norm(**ours.rms_norm()).apply({"scale": jnp.ones(4)}, (), jnp.full((1, 4), 1e-4))
    np.testing.assert_allclose(y[0], torch.nn.RMSNorm(4)(x).detach().numpy(), rtol=1e-6)


@pytest.fixture(scope="module")
def linen():
    return pytest.importorskip("flax.linen")


def draw_all(cases):
    """The draws of many initializers from one key, by one program: to compile each costs more."""

    @jax.jit
    def draw(data):
        return [f(jax.random.wrap_key_data(data), shape, jnp.float32) for f, shape in cases]

    return draw(jax.random.key_data(key()))


@pytest.mark.slow
def test_flax_presets_are_flax_s_own_initializers_bit_for_bit(linen):
    ours, attention = presets.flax, linen.MultiHeadDotProductAttention(2)
    pairs = [
        (ours.linear()["kernel_init"], linen.Dense(1).kernel_init, (7, 5)),
        (ours.conv()["kernel_init"], linen.Conv(1, (3,)).kernel_init, (3, 7, 5)),
        (
            ours.conv_transpose()["kernel_init"],
            linen.ConvTranspose(1, (3,)).kernel_init,
            (3, 7, 5),
        ),
        (ours.embedding()["table_init"], linen.Embed(1, 1).embedding_init, (7, 5)),
        (ours.attention()["kernel_init"], attention.kernel_init, (7, 5)),
        (ours.attention()["out_kernel_init"], attention.kernel_init, (7, 5)),
    ]
    assert attention.out_kernel_init is None  # then it is kernel_init
    for cell, own in {
        linen.SimpleCell(1): ours.rnn(),
        linen.LSTMCell(1): ours.lstm(),
        linen.OptimizedLSTMCell(1): ours.lstm(),
        linen.GRUCell(1): ours.gru(),
    }.items():

        def second_gate(key, shape, dtype, cell=cell):
            return cell.recurrent_kernel_init(jax.random.fold_in(key, 1), shape, dtype)

        def second_block(key, shape, dtype, own=own):
            return own["recurrent_init"](key, (5, 15), dtype)[:, 5:10]

        pairs.append((own["kernel_init"], cell.kernel_init, (7, 5)))
        pairs.append((second_block, second_gate, (5, 5)))
        assert cell.bias_init is linen.initializers.zeros
        assert inspect.unwrap(own["bias_init"]) is inspect.unwrap(initializers.zeros)
    draws = draw_all([(f, shape) for *both, shape in pairs for f in both])
    for a, b in zip(draws[::2], draws[1::2], strict=True):
        assert (a == b).all() and len(np.unique(a)) > 20
    assert ours.lstm()["forget_bias"] == 0.0


def test_flax_presets_of_norms_are_flax_s_own_arguments(linen):
    ours = presets.flax
    assert ours.layer_norm() == {"eps": linen.LayerNorm().epsilon}
    assert ours.rms_norm() == {"eps": linen.RMSNorm().epsilon}
    assert ours.instance_norm() == {"eps": linen.InstanceNorm().epsilon}
    norm = linen.GroupNorm()
    assert ours.group_norm() == {"num_groups": norm.num_groups, "eps": norm.epsilon}
    norm = linen.BatchNorm()
    assert ours.batch_norm() == {"eps": norm.epsilon, "decay": norm.momentum}


def keras_glorot(shape):
    """The limit of Keras's GlorotUniform, from the formulas of its documentation.

    limit = sqrt(6 / (fan_in + fan_out)); for more than two axes all before the last two are the
    receptive field, which multiplies both fans.
    """
    field = math.prod(shape[:-2])
    return math.sqrt(6 / (shape[-2] * field + shape[-1] * field))


@pytest.mark.parametrize(
    "preset, argument, shape, in_keras",
    [
        (presets.keras.linear(), "kernel_init", (40, 60), (40, 60)),
        (presets.keras.conv(), "kernel_init", (3, 3, 16, 20), (3, 3, 16, 20)),
        (presets.keras.conv_transpose(), "kernel_init", (3, 3, 16, 20), (3, 3, 20, 16)),
        (
            presets.keras.depthwise_conv((3, 3), 60, multiplier=5),
            "kernel_init",
            (3, 3, 1, 300),
            (3, 3, 60, 5),
        ),
        (presets.keras.lstm(), "kernel_init", (30, 80), (30, 80)),
        (presets.keras.attention(48, 4, 12), "kernel_init", (48, 48), (48, 4, 12)),
        (presets.keras.attention(48, 4, 12), "out_kernel_init", (48, 48), (4, 12, 48)),
    ],
)
def test_keras_presets_have_the_limits_of_keras(preset, argument, shape, in_keras):
    draws, limit = np.asarray(preset[argument](key(), shape)), keras_glorot(in_keras)
    assert 0.995 * limit <= abs(draws).max() <= limit
    # Uniform: the variance is a third of the limit's square, known to 0.9 / sqrt(n) of itself.
    np.testing.assert_allclose(draws.var(), limit**2 / 3, rtol=4 * 0.9 / math.sqrt(draws.size))


@pytest.mark.slow
def test_keras_presets_of_the_other_parameters_follow_its_documentation():
    keras = presets.keras
    table = np.asarray(keras.embedding()["table_init"](key(), (40, 60)))
    assert 0.0495 <= abs(table).max() <= 0.05
    cells = {
        lambda key: layers.lstm_cell_init(key, 2, 6, **keras.lstm()): 4,
        lambda key: layers.gru_cell_init(key, 2, 6, **keras.gru()): 3,
    }
    for init, gates in cells.items():
        # One matrix with orthonormal rows for all gates, where Flax has one for each.
        kernel = jax.jit(init)(key())["hidden"]["kernel"]
        assert kernel.shape == (6, 6 * gates)
        np.testing.assert_allclose(kernel @ kernel.T, np.eye(6), atol=1e-5)
    assert keras.lstm()["forget_bias"] == 1.0
    assert keras.layer_norm() == {"eps": 1e-3}
    assert keras.batch_norm() == {"eps": 1e-3, "decay": 0.99}
    assert keras.group_norm() == {"num_groups": 32, "eps": 1e-3}
    assert keras.rms_norm() == {"eps": 1e-6}


@pytest.mark.parametrize("library", ["torch", "flax", "keras"])
def test_layers_take_the_presets_as_their_arguments(library):
    preset = getattr(presets, library)
    sized = (lambda *sizes: sizes) if library == "torch" else lambda *sizes: ()
    inits = [
        lambda: layers.linear_init(key(), 3, 4, **preset.linear(*sized(3))),
        lambda: layers.conv_init(key(), 3, 4, (2, 2), **preset.conv(*sized((2, 2), 3))),
        lambda: layers.conv_transpose_init(
            key(), 3, 4, (2, 2), **preset.conv_transpose(*sized((2, 2), 4))
        ),
        lambda: layers.rnn_cell_init(key(), 3, 4, **preset.rnn(*sized(4))),
        lambda: layers.lstm_cell_init(key(), 3, 4, **preset.lstm(*sized(4))),
        lambda: layers.gru_cell_init(key(), 3, 4, **preset.gru(*sized(4))),
        lambda: layers.embedding_init(key(), 3, 4, **preset.embedding()),
    ]
    x = jnp.zeros((2, 3, 32))
    for norm in ("layer_norm", "batch_norm", "rms_norm"):
        model = getattr(nn, norm)(**getattr(preset, norm)())
        inits.append(lambda model=model: model.init(key(), x)[0])
    groups = {"num_groups": 4} if library == "torch" else {}
    norm = nn.group_norm(**groups, **preset.group_norm())
    inits.append(lambda: norm.init(key(), x)[0])
    for init in inits:
        assert jax.tree.leaves(jax.eval_shape(init))


@pytest.mark.slow
def test_initializers_give_the_bits_of_jax():
    peer = jax.nn.initializers
    pairs = [
        (initializers.lecun_normal(), peer.lecun_normal(), (3, 5, 7)),
        (initializers.lecun_uniform(), peer.lecun_uniform(), (5, 7)),
        (initializers.glorot_uniform(), peer.glorot_uniform(), (5, 7)),
        (initializers.he_uniform(), peer.he_uniform(), (5, 7)),
        (initializers.he_normal(), peer.variance_scaling(2.0, "fan_in", "normal"), (5, 7)),
        (initializers.glorot_normal(), peer.variance_scaling(1.0, "fan_avg", "normal"), (5, 7)),
        (initializers.orthogonal(), peer.orthogonal(), (5, 7)),
        (initializers.orthogonal(), peer.orthogonal(), (7, 5)),
        (initializers.delta_orthogonal(), peer.delta_orthogonal(), (3, 4, 5, 7)),
        (initializers.truncated_normal(), peer.truncated_normal(1.0), (5, 7)),
    ]
    draws = draw_all([(f, shape) for *both, shape in pairs for f in both])
    for a, b, (*_, shape) in zip(draws[::2], draws[1::2], pairs, strict=True):
        assert (a == b).all() and len(np.unique(a)) > 20, shape


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("outputs", [4, 8])
def test_dirac_is_that_of_torch_in_windows_of_odd_size(groups, outputs):
    weight = torch.empty(outputs, 6 // groups, 3, 5)
    torch.nn.init.dirac_(weight, groups=groups)
    kernel = initializers.dirac(groups=groups)(None, (3, 5, 6 // groups, outputs))
    assert (np.asarray(kernel) == weight.permute(2, 3, 1, 0).numpy()).all()


def test_dirac_hands_the_input_on_under_padding_same():
    x = jax.random.normal(key(), (2, 7, 5))
    for size in (1, 2, 3, 4):
        kernel = initializers.dirac()(None, (size, 5, 5))
        y = jax.lax.conv_general_dilated(
            x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
        )
        assert (y == x).all()


def test_identity_is_that_of_torch():
    for shape in ((3, 5), (5, 3)):
        theirs = torch.nn.init.eye_(torch.empty(*shape)).numpy()
        assert (np.asarray(initializers.identity()(None, shape)) == theirs).all()


def test_scaled_residual_keeps_the_sum_of_all_branches_at_the_scale_of_one():
    layers_, base = 12, initializers.normal(0.02)
    scaled = initializers.scaled_residual(layers_, base)(key(), (50,))
    np.testing.assert_allclose(scaled * math.sqrt(2 * layers_), base(key(), (50,)), rtol=1e-6)


def test_a_cut_leaves_nothing_beyond_it():
    draws = initializers.truncated_normal(0.5, cut=1.0)(key(), (2000,))
    assert 0.49 <= abs(draws).max() <= 0.5


def test_values_and_spreads_may_be_traced():
    @jax.jit
    def draw(value):
        return [
            make(value)(key(), (3, 3))
            for make in (
                initializers.constant,
                initializers.identity,
                initializers.truncated_normal,
                lambda v: initializers.uniform(-v, v),
            )
        ]

    for small, large in zip(draw(0.1), draw(0.2), strict=True):
        np.testing.assert_allclose(2 * small, large, rtol=1e-5)


@pytest.mark.parametrize(
    "initializer, shape, words",
    [
        (initializers.identity(), (2, 2, 2), "identity: expected a kernel of shape"),
        (initializers.dirac(), (2, 2), "dirac: expected a kernel of shape"),
        (initializers.dirac(groups=2), (3, 2, 3), "dirac: expected a kernel of shape"),
        (initializers.delta_orthogonal(), (3, 4, 2), "delta_orthogonal: expected a kernel"),
        (initializers.delta_orthogonal(), (2, 2), "delta_orthogonal: expected a kernel"),
        (initializers.blockwise(initializers.orthogonal()), (4, 6), "blockwise: expected a kernel"),
        (initializers.lecun_normal(), (3,), "fans: expected a kernel"),
    ],
)
def test_initializers_say_which_shape_they_need(initializer, shape, words):
    with pytest.raises(ValueError, match=words):
        initializer(key(), shape)


def test_scaled_residual_needs_a_layer():
    with pytest.raises(
        ValueError, match="scaled_residual: expected n_layers to be a positive integer"
    ):
        initializers.scaled_residual(0)

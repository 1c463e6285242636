"""An error deep in a model names the layer's path and what it got, in one note."""

import pickle

import jax
import jax.numpy as jnp
import pytest

from fnn import models, nn, tree
from fnn.expect import in_layer
from fnn.nn import cast, parallel, remat, residual, sequential, stack

KEY = jax.random.key(0)


def broken(x):
    return x @ jnp.ones((99, 2))  # JAX's own error


def note_of(call):
    """The note that names the layer in which the call fails."""
    with pytest.raises((TypeError, ValueError)) as error:
        call()
    (note,) = [note for note in error.value.__notes__ if ", which got " in note]
    return str(note)


def _compact(run, x):
    x = jnp.tanh(run("block", nn.linear(5), x, 0))
    return run("block", sequential(first=nn.linear(6), then=broken), x, 1)


NESTED = {
    "sequential by index": (sequential(nn.linear(4), broken), "1", "[2,4]"),
    "sequential by name": (
        sequential(stages=sequential(sequential(a=nn.linear(4), b=broken))),
        "stages/0/b",
        "[2,4]",
    ),
    "parallel by name": (
        sequential(both=parallel(left=nn.linear(4), right=broken)),
        "both/right",
        "[2,3]",
    ),
    "parallel by index": (parallel(nn.linear(4), sequential(jnp.tanh, broken)), "1/1", "[2,3]"),
    "residual": (sequential(body=residual(sequential(a=jnp.tanh, b=broken))), "body/b", "[2,3]"),
    "residual that changes the shape": (
        sequential(nn.linear(4), residual(nn.linear(3))),
        "1",
        "[2,4]",
    ),
    "stack": (sequential(blocks=stack(sequential(jnp.tanh, broken), 2)), "blocks/1", "[2,3]"),
    "stack, unrolled": (
        sequential(blocks=stack(sequential(jnp.tanh, broken), 2, scan=False)),
        "blocks/1",
        "[2,3]",
    ),
    "stack that changes the shape": (sequential(jnp.tanh, stack(nn.linear(4), 2)), "1", "[2,3]"),
    "compact": (sequential(net=nn.compact(_compact)), "net/block/1/then", "[2,6]"),
    "remat": (sequential(a=remat(sequential(b=broken))), "a/b", "[2,3]"),
    "cast": (sequential(a=cast(sequential(b=broken), jnp.bfloat16)), "a/b", "[2,3]"),
    "an own model": (
        sequential(a=nn.weight_norm(sequential(b=nn.linear(4), c=broken))),
        "a/c",
        "[2,4]",
    ),
}


@pytest.mark.parametrize("name", NESTED)
def test_the_note_of_an_error_at_init_is_the_path_of_the_parameters(name):
    model, path, shape = NESTED[name]
    note = note_of(lambda: jax.eval_shape(model.init, KEY, jnp.zeros((2, 3))))
    assert note == f"in {path}, which got float32{shape}"


def _of_shape(params, path, shape):
    """The parameters with one leaf of another shape."""
    swap = lambda at, leaf: jax.ShapeDtypeStruct(shape, leaf.dtype) if at == path else leaf  # noqa: E731
    changed = tree.map_with_path(swap, params)
    assert path in tree.paths(params)
    return changed


RESNET = models.resnet.ResNetConfig(
    out_features=2,
    depths=(1, 1),
    widths=(4, 8),
    stem_features=4,
    stem=models.resnet.cifar_stem,
    block=models.resnet.resnet18().block,
    top=models.resnet.resnet18().top,
)


def gpt(scan):
    config = models.gpt.gpt2(
        vocab_size=5, max_length=4, features=8, num_layers=2, num_heads=2, scan=scan
    )
    return models.gpt.gpt(config)


# A model, its input, the leaf that gets another shape, and what the note says then.
IMAGES, TOKENS = jnp.zeros((2, 8, 8, 3)), jnp.zeros((2, 3), jnp.int32)
DEEP = {
    "resnet": (
        models.resnet.resnet(RESNET),
        IMAGES,
        ("stages/1/0/conv1/kernel", (3, 3, 5, 8)),
        "in stages/1/0/conv1, which got float32[2,8,8,4]",
    ),
    "cnn": (
        models.cnn.cnn(models.cnn.CNNConfig(stages=((4,), (8,)), out_features=2)),
        IMAGES,
        ("stages/1/0/norm/scale", (7,)),
        "in stages/1/0/norm, which got float32[2,4,4,8]",
    ),
    "unet": (
        models.unet.unet(models.unet.UNetConfig(widths=(4, 8), convs_per_block=1, out_features=1)),
        IMAGES,
        ("join/0/units/0/conv/kernel", (3, 3, 5, 4)),
        "in join/0/units/0/conv, which got float32[2,8,8,8]",
    ),
    "gpt": (
        gpt(scan=False),
        TOKENS,
        ("blocks/1/mlp/up/kernel", (9, 32)),
        "in blocks/1/mlp, which got float32[2,3,8]",
    ),
    "gpt, scanned": (
        gpt(scan=True),
        TOKENS,
        ("blocks/attention_norm/scale", (2, 9)),
        "in blocks/attention_norm, which got float32[2,3,8]",
    ),
    "encoder_decoder": (
        models.encoder_decoder.encoder_decoder(
            models.encoder_decoder.transformer_base(
                vocab_size=5, features=4, num_layers=1, num_heads=2, hidden_features=6
            )
        ),
        (TOKENS, TOKENS),
        ("decoder/0/mlp/up/kernel", (5, 6)),
        "in decoder/0/mlp, which got float32[2,3,4]",
    ),
    "rnn_lm": (
        models.rnn_lm.rnn_lm(models.rnn_lm.RNNLMConfig(vocab_size=5, features=2, widths=(3, 4))),
        TOKENS,
        ("layers/1/input/kernel", (5, 16)),
        "in layers/1, which got float32[2,3,3]",
    ),
    "autoencoder": (
        models.autoencoder.autoencoder(
            models.autoencoder.AutoencoderConfig(widths=(4,), code_features=2)
        ),
        jnp.zeros((2, 6)),
        ("decoder/head/kernel", (5, 6)),
        "in decoder/head, which got float32[2,4]",
    ),
    "bidirectional": (
        sequential(nn.bidirectional(nn.gru(4))),
        jnp.zeros((2, 5, 3)),
        ("0/backward/input/kernel", (4, 12)),
        "in 0/backward, which got float32[2,5,3]",
    ),
}


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", DEEP)
def test_the_note_of_an_error_in_apply_is_the_path_of_the_parameters(name):
    model, x, (path, shape), expected = DEEP[name]
    params, state = jax.eval_shape(model.init, KEY, x)
    params = _of_shape(params, path, shape)

    @jax.jit
    def slopes(params, state, x):
        return jax.grad(lambda params: model.apply(params, state, x)[0].sum())(params)

    assert note_of(lambda: jax.eval_shape(slopes, params, state, x)) == expected


def test_inputs_of_several_arrays_are_named_whole():
    x = {"a": jnp.zeros(2), "b": (jnp.zeros((3, 1), jnp.int32), "text")}
    model = sequential(first=lambda x: x["c"])
    with pytest.raises(KeyError) as error:
        model.apply({}, (), x)
    assert error.value.__notes__ == ["in first, which got {a: float32[2], b: (int32[3,1], str)}"]


def test_other_notes_stay_and_what_ends_a_program_gets_none():
    with pytest.raises(ValueError, match="odd") as error, in_layer(("a",), jnp.zeros(1)):
        raised = ValueError("odd")
        raised.add_note("one")
        raise raised
    assert error.value.__notes__ == ["one", "in a, which got float32[1]"]
    assert pickle.loads(pickle.dumps(error.value)).__notes__ == error.value.__notes__
    with pytest.raises(KeyboardInterrupt) as stop, in_layer(("a",), jnp.zeros(1)):
        raise KeyboardInterrupt
    assert not hasattr(stop.value, "__notes__")

"""Rows of the combinators and of whole networks."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from fnn import models
from fnn.activations import tanh
from fnn.combinators import lift, residual, sequential
from tests.registry.rows import ModelRow, integers, normal


def _noisy_residual():
    inner = sequential(models.layer_norm(), models.dense(4), models.dropout(0.5))
    return residual(inner)


def _small(config):
    """One block with a shortcut that is a convolution; smooth, where nothing else is not."""
    return replace(config, depths=(1,), widths=(3,), stem_features=2, activation=tanh)


MODELS = [
    ModelRow(
        name="sequential by place",
        make=lambda: sequential(models.flatten(), models.dense(4), tanh, models.dense(2)),
        x=normal(3, 2, 4),
    ),
    ModelRow(
        name="sequential by name, with state and noise",
        make=lambda: sequential(
            first=models.dense(6), norm=models.batch_norm(), drop=models.dropout(0.5), last=jnp.sin
        ),
        x=normal(4, 3),
        noisy=True,
    ),
    ModelRow(name="residual", make=lambda: residual(models.dense(4)), x=normal(3, 4)),
    ModelRow(name="residual with noise", make=_noisy_residual, x=normal(4, 4), noisy=True),
    ModelRow(
        name="mlp",
        make=lambda: models.mlp(models.MLPConfig(widths=(6, 5), out_features=2)),
        x=normal(4, 3),
    ),
    ModelRow(
        name="mlp without hidden layers",
        make=lambda: models.mlp(models.MLPConfig(widths=(), out_features=2)),
        x=normal(4, 3),
    ),
    ModelRow(
        name="mlp with batch norm and dropout",
        make=lambda: models.mlp(
            models.MLPConfig(widths=(8,), out_features=3, activation=tanh, norm=models.batch_norm),
            rate=0.5,
        ),
        x=normal(4, 3),
        noisy=True,
    ),
    ModelRow(
        name="cnn",
        make=lambda: models.cnn(
            models.CNNConfig(
                stages=((2,), (3,)),
                out_features=2,
                activation=tanh,
                pool=models.average_pool((2, 2)),
            ),
            rate=0.5,
        ),
        x=normal(3, 4, 4, 1),
        noisy=True,
    ),
    ModelRow(
        name="lenet",
        make=lambda: models.lenet(models.LeNetConfig(out_features=2)),
        x=normal(3, 28, 28, 1),
    ),
    ModelRow(
        name="rnn_lm",
        make=lambda: models.rnn_lm(
            models.RNNLMConfig(vocabulary=5, features=2, widths=(3,), cell=models.GRU), rate=0.5
        ),
        x=integers(3, 4, below=5),
        noisy=True,
    ),
    ModelRow(name="perceptron", make=models.perceptron, x=normal(3, 2)),
    ModelRow(
        name="gpt",
        make=lambda: models.gpt(
            models.gpt2(vocabulary=5, max_length=4, features=4, num_layers=1, num_heads=2),
            rate=0.5,
        ),
        x=integers(3, 4, below=5),
        noisy=True,
    ),
    ModelRow(
        name="gpt as llama, scanned",
        make=lambda: models.gpt(
            models.llama(
                vocabulary=5,
                max_length=4,
                features=4,
                num_layers=2,
                num_heads=2,
                num_kv_heads=1,
                hidden_features=6,
                scan=True,
            )
        ),
        x=integers(3, 4, below=5),
    ),
    ModelRow(
        name="bert",
        slow=True,
        make=lambda: models.bert(
            models.bert_base(vocabulary=5, max_length=4, features=4, num_layers=1, num_heads=2),
            rate=0.5,
        ),
        x=models.BERTInput(
            integers(3, 4, below=5),
            segments=integers(3, 4, below=2),
            lengths=np.array([4, 1, 2], np.int32),
        ),
        noisy=True,
    ),
    ModelRow(
        name="masked_lm, scanned",
        slow=True,
        make=lambda: models.masked_lm(
            models.bert_base(
                vocabulary=5, max_length=4, features=4, num_layers=2, num_heads=2, scan=True
            )
        ),
        x=models.BERTInput(integers(3, 4, below=5)),
    ),
    ModelRow(
        name="vit",
        slow=True,
        make=lambda: models.vit(
            models.vit_base(patch=2, features=4, num_layers=1, num_heads=2, out_features=2),
            rate=0.5,
        ),
        x=normal(3, 4, 2, 2),
        noisy=True,
    ),
    ModelRow(
        name="encoder_decoder",
        slow=True,
        make=lambda: models.encoder_decoder(
            models.transformer_base(
                vocabulary=5, features=4, num_layers=1, num_heads=2, hidden_features=6, pad=0
            ),
            rate=0.5,
        ),
        x=(integers(3, 4, below=5), integers(3, 3, below=5, seed=1)),
        noisy=True,
        smooth=False,  # a relu
    ),
    ModelRow(
        name="resnet",
        slow=True,
        make=lambda: models.resnet(_small(models.resnet18(2, stem=models.cifar_stem)), rate=0.5),
        x=normal(3, 4, 4, 1),
        noisy=True,
    ),
    ModelRow(
        name="convnext",
        slow=True,
        make=lambda: models.convnext(
            models.ConvNeXtConfig(
                depths=(1,), widths=(2,), patch=2, window=3, growth=2, out_features=2
            )
        ),
        x=normal(3, 4, 4, 1),
    ),
    ModelRow(
        name="mixer",
        slow=True,
        make=lambda: models.mixer(
            models.MixerConfig(
                patch=2,
                features=3,
                num_layers=1,
                token_features=2,
                channel_features=4,
                out_features=2,
            ),
            rate=0.5,
        ),
        x=normal(3, 4, 2, 1),
        noisy=True,
    ),
    ModelRow(
        name="unet with a condition",
        slow=True,
        make=lambda: models.unet(
            models.UNetConfig(
                widths=(2, 3),
                depth=1,
                out_features=1,
                activation=tanh,
                down=models.average_pool((2, 2)),
            )
        ),
        x=(normal(3, 4, 4, 1), normal(3, 2, seed=1)),
    ),
    ModelRow(
        name="autoencoder",
        make=lambda: models.autoencoder(
            models.AutoencoderConfig(widths=(4,), code_features=2, activation=tanh), rate=0.5
        ),
        x=normal(4, 3),
        noisy=True,
    ),
    ModelRow(
        name="vae",
        make=lambda: models.vae(models.VAEConfig(widths=(4,), latent_features=2, activation=tanh)),
        x=normal(4, 3),
        noisy=True,
    ),
    ModelRow(
        name="dit",
        slow=True,
        make=lambda: models.dit(
            models.DiTConfig(
                patch=1, features=4, num_layers=1, num_heads=1, time_scale=1.0, classes=2
            )
        ),
        x=(normal(3, 2, 2, 1), normal(3, seed=1), integers(3, below=3)),
    ),
    ModelRow(
        name="diffusion",
        make=lambda: models.diffusion(
            models.DiffusionConfig(denoiser=lift(lambda inputs: tanh(inputs[0])))
        ),
        x=normal(4, 3),
        noisy=True,
        rowwise=False,  # which noise an example gets in an evaluation depends on its place
    ),
]

HELPERS = [
    "combinators.as_model",
    "combinators.output_of",
    "models.bert_base",  # tests/test_models_bert_vit.py
    "models.bert_features",
    "models.encode",
    "models.encoder_decoder_decoder",
    "models.transformer_base",
    "models.vit_base",
    "models.vit_features",
    "models.with_source",
    "models.rnn_decoder",  # tests/test_models_rnn_lm.py
    "models.gpt2",  # tests/test_models_gpt.py
    "models.gpt_decoder",
    "models.gpt_features",
    "models.llama",
    "models.says_yes",
    "models.cifar_stem",  # tests/test_models_vision.py
    "models.imagenet_stem",
    "models.resnet18",
    "models.resnet34",
    "models.resnet50",
    "models.resnet101",
    "models.wide_resnet",
    "models.ancestral",  # tests/test_models_generative.py
    "models.cosine_noise",
    "models.ddim",
    "models.denoise_with",
    "models.denoising_loss",
    "models.from_code",
    "models.gaussian_kl",
    "models.linear_noise",
    "models.negative_elbo",
    "models.reparameterise",
    "models.spread_times",
    "models.to_code",
    "models.unit_gaussian_nll",
    "models.vae_decode",
    "models.vae_encode",
    "models.vae_sample",
    "models.mup_gpt",  # tests/test_mup.py
    "models.mup_mlp",
    "optim.scaled_for_width",
]

"""Rows of the combinators and of whole networks."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from fnn import models, nn
from fnn.activations import tanh
from fnn.nn import lift, residual, sequential
from tests.registry.rows import ModelRow, integers, normal


def _noisy_residual():
    inner = sequential(nn.layer_norm(), nn.linear(4), nn.dropout(0.5))
    return residual(inner)


def _small(config):
    """One block with a shortcut that is a convolution; smooth, where nothing else is not."""
    return replace(config, depths=(1,), widths=(3,), stem_features=2, activation=tanh)


MODELS = [
    ModelRow(
        name="sequential by place",
        make=lambda: sequential(nn.flatten(), nn.linear(4), tanh, nn.linear(2)),
        x=normal(3, 2, 4),
    ),
    ModelRow(
        name="sequential by name, with state and noise",
        make=lambda: sequential(
            first=nn.linear(6), norm=nn.batch_norm(), drop=nn.dropout(0.5), last=jnp.sin
        ),
        x=normal(4, 3),
        noisy=True,
    ),
    ModelRow(name="residual", make=lambda: residual(nn.linear(4)), x=normal(3, 4)),
    ModelRow(name="residual with noise", make=_noisy_residual, x=normal(4, 4), noisy=True),
    ModelRow(
        name="mlp",
        make=lambda: models.mlp.mlp(models.mlp.MLPConfig(widths=(6, 5), out_features=2)),
        x=normal(4, 3),
    ),
    ModelRow(
        name="mlp without hidden layers",
        make=lambda: models.mlp.mlp(models.mlp.MLPConfig(widths=(), out_features=2)),
        x=normal(4, 3),
    ),
    ModelRow(
        name="mlp with batch norm and dropout",
        make=lambda: models.mlp.mlp(
            models.mlp.MLPConfig(widths=(8,), out_features=3, activation=tanh, norm=nn.batch_norm),
            rate=0.5,
        ),
        x=normal(4, 3),
        noisy=True,
    ),
    ModelRow(
        name="cnn",
        make=lambda: models.cnn.cnn(
            models.cnn.CNNConfig(
                stages=((2,), (3,)),
                out_features=2,
                activation=tanh,
                pool=nn.average_pool((2, 2)),
            ),
            rate=0.5,
        ),
        x=normal(3, 4, 4, 1),
        noisy=True,
    ),
    ModelRow(
        name="lenet",
        make=lambda: models.lenet.lenet(models.lenet.LeNetConfig(out_features=2)),
        x=normal(3, 28, 28, 1),
    ),
    ModelRow(
        name="rnn_lm",
        make=lambda: models.rnn_lm.rnn_lm(
            models.rnn_lm.RNNLMConfig(
                vocab_size=5, features=2, widths=(3,), cell=models.rnn_lm.GRU
            ),
            rate=0.5,
        ),
        x=integers(3, 4, below=5),
        noisy=True,
    ),
    ModelRow(name="perceptron", make=models.perceptron.perceptron, x=normal(3, 2)),
    ModelRow(
        name="gpt",
        make=lambda: models.gpt.gpt(
            models.gpt.gpt2(vocab_size=5, max_length=4, features=4, num_layers=1, num_heads=2),
            rate=0.5,
        ),
        x=integers(3, 4, below=5),
        noisy=True,
    ),
    ModelRow(
        name="gpt as llama, scanned",
        make=lambda: models.gpt.gpt(
            models.gpt.llama(
                vocab_size=5,
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
        make=lambda: models.bert.bert(
            models.bert.bert_base(
                vocab_size=5, max_length=4, features=4, num_layers=1, num_heads=2
            ),
            rate=0.5,
        ),
        x=models.bert.BERTInput(
            integers(3, 4, below=5),
            segments=integers(3, 4, below=2),
            lengths=np.array([4, 1, 2], np.int32),
        ),
        noisy=True,
    ),
    ModelRow(
        name="masked_lm, scanned",
        slow=True,
        make=lambda: models.bert.masked_lm(
            models.bert.bert_base(
                vocab_size=5, max_length=4, features=4, num_layers=2, num_heads=2, scan=True
            )
        ),
        x=models.bert.BERTInput(integers(3, 4, below=5)),
    ),
    ModelRow(
        name="vit",
        slow=True,
        make=lambda: models.vit.vit(
            models.vit.vit_base(
                patch_size=2, features=4, num_layers=1, num_heads=2, out_features=2
            ),
            rate=0.5,
        ),
        x=normal(3, 4, 2, 2),
        noisy=True,
    ),
    ModelRow(
        name="encoder_decoder",
        slow=True,
        make=lambda: models.encoder_decoder.encoder_decoder(
            models.encoder_decoder.transformer_base(
                vocab_size=5, features=4, num_layers=1, num_heads=2, hidden_features=6, pad=0
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
        make=lambda: models.resnet.resnet(
            _small(models.resnet.resnet18(2, stem=models.resnet.cifar_stem)), rate=0.5
        ),
        x=normal(3, 4, 4, 1),
        noisy=True,
    ),
    ModelRow(
        name="convnext",
        slow=True,
        make=lambda: models.convnext.convnext(
            models.convnext.ConvNeXtConfig(
                depths=(1,), widths=(2,), patch_size=2, kernel_size=3, mlp_ratio=2, out_features=2
            )
        ),
        x=normal(3, 4, 4, 1),
    ),
    ModelRow(
        name="mixer",
        slow=True,
        make=lambda: models.mixer.mixer(
            models.mixer.MixerConfig(
                patch_size=2,
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
        make=lambda: models.unet.unet(
            models.unet.UNetConfig(
                widths=(2, 3),
                convs_per_block=1,
                out_features=1,
                activation=tanh,
                downsample=nn.average_pool((2, 2)),
            )
        ),
        x=(normal(3, 4, 4, 1), normal(3, 2, seed=1)),
    ),
    ModelRow(
        name="autoencoder",
        make=lambda: models.autoencoder.autoencoder(
            models.autoencoder.AutoencoderConfig(widths=(4,), code_features=2, activation=tanh),
            rate=0.5,
        ),
        x=normal(4, 3),
        noisy=True,
    ),
    ModelRow(
        name="vae",
        make=lambda: models.vae.vae(
            models.vae.VAEConfig(widths=(4,), latent_features=2, activation=tanh)
        ),
        x=normal(4, 3),
        noisy=True,
    ),
    ModelRow(
        name="dit",
        slow=True,
        make=lambda: models.dit.dit(
            models.dit.DiTConfig(
                patch_size=1, features=4, num_layers=1, num_heads=1, time_scale=1.0, num_classes=2
            )
        ),
        x=(normal(3, 2, 2, 1), normal(3, seed=1), integers(3, below=3)),
    ),
    ModelRow(
        name="diffusion",
        make=lambda: models.diffusion.diffusion(
            models.diffusion.DiffusionConfig(denoiser=lift(lambda inputs: tanh(inputs[0])))
        ),
        x=normal(4, 3),
        noisy=True,
        rowwise=False,  # which noise an example gets in an evaluation depends on its place
    ),
]

RESNET_PARTS = [
    "average_top", "bare_stem", "basic_block", "bottleneck_block", "norm_top",
    "pre_activation_block",
]  # fmt: skip
HELPERS = [
    *(f"models.resnet.{part}" for part in RESNET_PARTS),  # rows of resnet are made of them
    "models.lenet.scaled_tanh",  # tests/test_models_cnn.py
    "models.unet.concatenate_features",  # tests/test_models_vision.py
    "models.unet.upsample_conv",
    "nn.as_model",
    "nn.output_of",
    "models.bert.bert_base",  # tests/test_models_bert_vit.py
    "models.bert.bert_features",
    "models.encoder_decoder.encode",
    "models.encoder_decoder.encoder_decoder_decoder",
    "models.encoder_decoder.transformer_base",
    "models.vit.vit_base",
    "models.vit.vit_features",
    "models.encoder_decoder.with_source",
    "models.rnn_lm.rnn_decoder",  # tests/test_models_rnn_lm.py
    "models.gpt.gpt2",  # tests/test_models_gpt.py
    "models.gpt.gpt_decoder",
    "models.gpt.gpt_features",
    "models.gpt.llama",
    "models.perceptron.fires",
    "models.resnet.cifar_stem",  # tests/test_models_vision.py
    "models.resnet.imagenet_stem",
    "models.resnet.resnet18",
    "models.resnet.resnet34",
    "models.resnet.resnet50",
    "models.resnet.resnet101",
    "models.resnet.wide_resnet",
    "models.diffusion.ancestral",  # tests/test_models_generative.py
    "models.diffusion.cosine_noise",
    "models.diffusion.ddim",
    "models.diffusion.denoise_with",
    "models.diffusion.denoising_loss",
    "models.autoencoder.decode",
    "models.vae.gaussian_kl",
    "models.diffusion.linear_noise",
    "models.vae.negative_elbo",
    "models.vae.reparameterize",
    "models.diffusion.low_discrepancy_times",
    "models.autoencoder.encode",
    "models.vae.unit_gaussian_nll",
    "models.vae.vae_decode",
    "models.vae.vae_encode",
    "models.vae.vae_sample",
    "models.mup.mup_gpt",  # tests/test_mup.py
    "models.mup.mup_mlp",
    "optim.scaled_for_width",
]

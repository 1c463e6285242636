"""Models: pairs (init, apply), made of the layers' functions and the combinators."""

from fnn.arguments import check_exports
from fnn.models.autoencoder import AutoencoderConfig as AutoencoderConfig
from fnn.models.autoencoder import autoencoder as autoencoder
from fnn.models.autoencoder import from_code as from_code
from fnn.models.autoencoder import to_code as to_code
from fnn.models.bert import BERTConfig as BERTConfig
from fnn.models.bert import BERTInput as BERTInput
from fnn.models.bert import BERTOutput as BERTOutput
from fnn.models.bert import bert as bert
from fnn.models.bert import bert_base as bert_base
from fnn.models.bert import bert_features as bert_features
from fnn.models.bert import masked_lm as masked_lm
from fnn.models.cnn import CNNConfig as CNNConfig
from fnn.models.cnn import cnn as cnn
from fnn.models.convnext import ConvNeXtConfig as ConvNeXtConfig
from fnn.models.convnext import convnext as convnext
from fnn.models.diffusion import Denoising as Denoising
from fnn.models.diffusion import DiffusionConfig as DiffusionConfig
from fnn.models.diffusion import Prediction as Prediction
from fnn.models.diffusion import ancestral as ancestral
from fnn.models.diffusion import cosine_noise as cosine_noise
from fnn.models.diffusion import ddim as ddim
from fnn.models.diffusion import denoise_with as denoise_with
from fnn.models.diffusion import denoising_loss as denoising_loss
from fnn.models.diffusion import diffusion as diffusion
from fnn.models.diffusion import linear_noise as linear_noise
from fnn.models.diffusion import noise_prediction as noise_prediction
from fnn.models.diffusion import spread_times as spread_times
from fnn.models.diffusion import v_prediction as v_prediction
from fnn.models.dit import DiTConfig as DiTConfig
from fnn.models.dit import dit as dit
from fnn.models.encoder_decoder import EncoderDecoderConfig as EncoderDecoderConfig
from fnn.models.encoder_decoder import encode as encode
from fnn.models.encoder_decoder import encoder_decoder as encoder_decoder
from fnn.models.encoder_decoder import encoder_decoder_decoder as encoder_decoder_decoder
from fnn.models.encoder_decoder import transformer_base as transformer_base
from fnn.models.encoder_decoder import with_source as with_source
from fnn.models.gpt import GPTConfig as GPTConfig
from fnn.models.gpt import gpt as gpt
from fnn.models.gpt import gpt2 as gpt2
from fnn.models.gpt import gpt_decoder as gpt_decoder
from fnn.models.gpt import gpt_features as gpt_features
from fnn.models.gpt import llama as llama
from fnn.models.layers import adaptive_average_pool as adaptive_average_pool
from fnn.models.layers import adaptive_max_pool as adaptive_max_pool
from fnn.models.layers import alpha_dropout as alpha_dropout
from fnn.models.layers import average_pool as average_pool
from fnn.models.layers import batch_norm as batch_norm
from fnn.models.layers import bidirectional as bidirectional
from fnn.models.layers import bilinear as bilinear
from fnn.models.layers import conv as conv
from fnn.models.layers import conv_transpose as conv_transpose
from fnn.models.layers import cross_attention as cross_attention
from fnn.models.layers import dense as dense
from fnn.models.layers import depthwise_conv as depthwise_conv
from fnn.models.layers import drop_path as drop_path
from fnn.models.layers import dropout as dropout
from fnn.models.layers import einsum as einsum
from fnn.models.layers import embedding as embedding
from fnn.models.layers import feed_forward as feed_forward
from fnn.models.layers import flatten as flatten
from fnn.models.layers import gated_mlp as gated_mlp
from fnn.models.layers import gaussian_dropout as gaussian_dropout
from fnn.models.layers import gaussian_noise as gaussian_noise
from fnn.models.layers import geglu as geglu
from fnn.models.layers import global_average_pool as global_average_pool
from fnn.models.layers import global_max_pool as global_max_pool
from fnn.models.layers import group_norm as group_norm
from fnn.models.layers import gru as gru
from fnn.models.layers import instance_norm as instance_norm
from fnn.models.layers import keep_lengths as keep_lengths
from fnn.models.layers import last_step as last_step
from fnn.models.layers import layer_norm as layer_norm
from fnn.models.layers import learned_positions as learned_positions
from fnn.models.layers import linear_general as linear_general
from fnn.models.layers import linear_recurrence as linear_recurrence
from fnn.models.layers import lstm as lstm
from fnn.models.layers import max_pool as max_pool
from fnn.models.layers import moe as moe
from fnn.models.layers import patchify as patchify
from fnn.models.layers import pixel_shuffle as pixel_shuffle
from fnn.models.layers import pixel_unshuffle as pixel_unshuffle
from fnn.models.layers import prelu as prelu
from fnn.models.layers import resize_linear as resize_linear
from fnn.models.layers import resize_nearest as resize_nearest
from fnn.models.layers import rms_norm as rms_norm
from fnn.models.layers import rnn as rnn
from fnn.models.layers import self_attention as self_attention
from fnn.models.layers import separable_conv as separable_conv
from fnn.models.layers import sinusoidal_positions as sinusoidal_positions
from fnn.models.layers import snake as snake
from fnn.models.layers import spatial_dropout as spatial_dropout
from fnn.models.layers import spectral_norm as spectral_norm
from fnn.models.layers import squeeze_excite as squeeze_excite
from fnn.models.layers import stochastic_depth as stochastic_depth
from fnn.models.layers import sum_pool as sum_pool
from fnn.models.layers import swiglu as swiglu
from fnn.models.layers import unpatchify as unpatchify
from fnn.models.layers import upsample_linear as upsample_linear
from fnn.models.layers import upsample_nearest as upsample_nearest
from fnn.models.layers import weight_norm as weight_norm
from fnn.models.lenet import LeNetConfig as LeNetConfig
from fnn.models.lenet import lenet as lenet
from fnn.models.mixer import MixerConfig as MixerConfig
from fnn.models.mixer import mixer as mixer
from fnn.models.mlp import MLPConfig as MLPConfig
from fnn.models.mlp import mlp as mlp
from fnn.models.mup import mup_gpt as mup_gpt
from fnn.models.mup import mup_mlp as mup_mlp
from fnn.models.perceptron import perceptron as perceptron
from fnn.models.perceptron import says_yes as says_yes
from fnn.models.resnet import ResNetConfig as ResNetConfig
from fnn.models.resnet import cifar_stem as cifar_stem
from fnn.models.resnet import imagenet_stem as imagenet_stem
from fnn.models.resnet import resnet as resnet
from fnn.models.resnet import resnet18 as resnet18
from fnn.models.resnet import resnet34 as resnet34
from fnn.models.resnet import resnet50 as resnet50
from fnn.models.resnet import resnet101 as resnet101
from fnn.models.resnet import wide_resnet as wide_resnet
from fnn.models.rnn_lm import GRU as GRU
from fnn.models.rnn_lm import LSTM as LSTM
from fnn.models.rnn_lm import RNN as RNN
from fnn.models.rnn_lm import Recurrent as Recurrent
from fnn.models.rnn_lm import RNNLMConfig as RNNLMConfig
from fnn.models.rnn_lm import rnn_decoder as rnn_decoder
from fnn.models.rnn_lm import rnn_lm as rnn_lm
from fnn.models.transformer import BlockConfig as BlockConfig
from fnn.models.unet import UNetConfig as UNetConfig
from fnn.models.unet import unet as unet
from fnn.models.vae import VAEConfig as VAEConfig
from fnn.models.vae import VAEOutput as VAEOutput
from fnn.models.vae import gaussian_kl as gaussian_kl
from fnn.models.vae import negative_elbo as negative_elbo
from fnn.models.vae import reparameterise as reparameterise
from fnn.models.vae import unit_gaussian_nll as unit_gaussian_nll
from fnn.models.vae import vae as vae
from fnn.models.vae import vae_decode as vae_decode
from fnn.models.vae import vae_encode as vae_encode
from fnn.models.vae import vae_sample as vae_sample
from fnn.models.vit import ViTConfig as ViTConfig
from fnn.models.vit import vit as vit
from fnn.models.vit import vit_base as vit_base
from fnn.models.vit import vit_features as vit_features
from fnn.models.wired import wired as wired

# fmt: off
__all__ = [
    "AutoencoderConfig", "BERTConfig", "BERTInput", "BERTOutput", "BlockConfig", "CNNConfig",
    "ConvNeXtConfig", "Denoising", "DiTConfig", "DiffusionConfig", "EncoderDecoderConfig",
    "GPTConfig", "GRU", "LSTM", "LeNetConfig", "MLPConfig", "MixerConfig", "Prediction", "RNN",
    "RNNLMConfig", "Recurrent", "ResNetConfig", "UNetConfig", "VAEConfig", "VAEOutput",
    "ViTConfig", "adaptive_average_pool", "adaptive_max_pool", "alpha_dropout", "ancestral",
    "autoencoder", "average_pool", "batch_norm", "bert", "bert_base", "bert_features",
    "bidirectional", "bilinear", "cifar_stem", "cnn", "conv", "conv_transpose", "convnext",
    "cosine_noise", "cross_attention", "ddim", "denoise_with", "denoising_loss", "dense",
    "depthwise_conv", "diffusion", "dit", "drop_path", "dropout", "einsum", "embedding",
    "encode", "encoder_decoder", "encoder_decoder_decoder", "feed_forward", "flatten",
    "from_code", "gated_mlp", "gaussian_dropout", "gaussian_kl", "gaussian_noise", "geglu",
    "global_average_pool", "global_max_pool", "gpt", "gpt2", "gpt_decoder", "gpt_features",
    "group_norm", "gru", "imagenet_stem", "instance_norm", "keep_lengths", "last_step",
    "layer_norm", "learned_positions", "lenet", "linear_general", "linear_noise",
    "linear_recurrence", "llama", "lstm", "masked_lm", "max_pool", "mixer", "mlp", "moe",
    "mup_gpt", "mup_mlp", "negative_elbo", "noise_prediction", "patchify", "perceptron",
    "pixel_shuffle", "pixel_unshuffle", "prelu", "reparameterise", "resize_linear",
    "resize_nearest", "resnet", "resnet101", "resnet18", "resnet34", "resnet50", "rms_norm",
    "rnn", "rnn_decoder", "rnn_lm", "says_yes", "self_attention", "separable_conv",
    "sinusoidal_positions", "snake", "spatial_dropout", "spectral_norm", "spread_times",
    "squeeze_excite", "stochastic_depth", "sum_pool", "swiglu", "to_code", "transformer_base",
    "unet", "unit_gaussian_nll", "unpatchify", "upsample_linear", "upsample_nearest",
    "v_prediction", "vae", "vae_decode", "vae_encode", "vae_sample", "vit", "vit_base",
    "vit_features", "weight_norm", "wide_resnet", "wired", "with_source",
]
# fmt: on

check_exports(__name__)

"""The experiment on Shakespeare, on a text of a few letters."""

import dataclasses
import importlib

import numpy as np
import pytest

from experiments import shared
from fnn import data

char_gpt = importlib.import_module("experiments.char_gpt")
TEXT = "to be or not to be\n" * 40
TINY = {
    "num_layers": 1, "num_heads": 2, "features": 8, "max_length": 8, "steps": 4, "warmup_steps": 1,
    "eval_every": 2, "batch_size": 4, "samples": 2, "sample_length": 10,
}  # fmt: skip


@pytest.mark.slow
def test_it_trains_evaluates_and_writes_text(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(data, "load", lambda name, root: TEXT)
    monkeypatch.setattr("builtins.print", lambda *a, **k: lines.append(str(a[0])))
    char_gpt.main(char_gpt.Config(out=tmp_path / "run", **TINY))
    found = {path.name for path in (tmp_path / "run").iterdir()}
    assert found >= {"config.json", "curves.png", "last.safetensors", "metrics.jsonl"}
    said = "\n".join(lines)
    # Eight letters, hardly trained: about log 8 = 2.1 nats.
    loss = float(said.split("validation loss ")[1].split()[0])
    assert 1.5 < loss < 2.5
    texts = [
        part.removeprefix("-" * 72 + "\n") for part in lines if part.startswith("-" * 72 + "\n")
    ]
    assert len(texts) == 2 and all(set(text) <= set(TEXT) for text in texts)


def test_each_position_of_the_validation_part_is_a_target_once():
    parts, symbols = shared.text_windows(TEXT, 8)
    assert parts.train[0].dtype == np.uint8 and len(parts.train[0]) == 684 - 8
    tokens = symbols.encode(TEXT)[684:]
    np.testing.assert_array_equal(parts.valid[1].ravel(), tokens[1 : 1 + parts.valid[1].size])
    assert symbols.decode(parts.train[0][0]) == TEXT[:8]
    assert symbols.decode(parts.train[1][0]) == TEXT[1:9]


def test_without_the_text_it_reads_the_standard_library(monkeypatch):
    def missing(name, root):
        raise FileNotFoundError("data.load: nowhere")

    monkeypatch.setattr(data, "load", missing)
    text, source = shared.read_text(None)
    assert "import" in text and len(text) > 100_000 and "standard library" in source
    with pytest.raises(FileNotFoundError):
        shared.read_text("/somewhere")


def test_the_configurations_are_nanogpts():
    cpu, gpu = char_gpt.Config(), char_gpt.GPU
    assert (cpu.num_layers, cpu.features, cpu.max_length, cpu.batch_size) == (4, 128, 64, 12)
    assert (gpu.num_layers, gpu.features, gpu.max_length, gpu.batch_size) == (6, 384, 256, 64)


@pytest.mark.parametrize(
    ("name", "value"),
    [("features", 130), ("warmup_steps", 2000), ("dropout_rate", 1.0), ("temperature", -1.0)],
)
def test_a_wrong_argument_is_named(name, value):
    with pytest.raises(ValueError, match="--" + name.replace("_", "-")):
        dataclasses.replace(char_gpt.Config(), **{name: value})

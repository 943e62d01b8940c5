"""Random weights under fairseq's names, and what is told of states beside the numbers that a reference gave for them."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.unpickle import split
from engine.weights import Checkpoint

CONVOLUTIONS = "[(8, 10, 5)] + [(8, 3, 2)] * 4 + [(8, 2, 2)] * 2"
SMALL: dict[str, Any] = {
    "encoder_embed_dim": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_embed_dim": 24,
    "conv_feature_layers": CONVOLUTIONS,
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "final_dim": 8,
}
GOLDEN = Path(__file__).parent / "engine" / "upstreams" / "golden"


class Draw:
    """Draws tensors with a fixed seed, in the order in which they are asked for."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.drawn: dict[str, Tensor] = {}

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def matrix(self, name: str, *shape: int) -> None:
        """As large as keeps what goes through it as large as it was."""
        size = torch.Size(shape[1:]).numel()
        self.drawn[name] = self.randn(*shape) / size**0.5

    def vector(self, name: str, *shape: int, around: float = 0.0) -> None:
        self.drawn[name] = around + 0.1 * self.randn(*shape)

    def linear(self, name: str, inputs: int, outputs: int) -> None:
        self.matrix(f"{name}.weight", outputs, inputs)
        self.vector(f"{name}.bias", outputs)

    def norm(self, name: str, width: int) -> None:
        self.vector(f"{name}.weight", width, around=1.0)
        self.vector(f"{name}.bias", width)


def front(draw: Draw, settings: dict[str, Any], convolutions: int = 7, width: int = 8) -> None:
    """The convolutions over the waveform, and what follows them."""
    kernels = (10, 3, 3, 3, 3, 2, 2)[:convolutions]
    by_layer = settings.get("extractor_mode") == "layer_norm"
    for number, kernel in enumerate(kernels):
        stem = f"feature_extractor.conv_layers.{number}"
        draw.matrix(f"{stem}.0.weight", width, width if number else 1, kernel)
        if settings.get("conv_bias"):
            draw.vector(f"{stem}.0.bias", width)
        if by_layer or number == 0:
            draw.norm(f"{stem}.2.1" if by_layer else f"{stem}.2", width)
    draw.norm("layer_norm", width)


def encoder(draw: Draw, settings: dict[str, Any], inputs: int = 8) -> None:
    """The projection, the positions and the blocks."""
    dim, inner = settings["encoder_embed_dim"], settings["encoder_ffn_embed_dim"]
    draw.linear("post_extract_proj", inputs, dim)
    groups, depth = settings["conv_pos_groups"], settings.get("pos_conv_depth", 1)
    if depth == 1:
        draw.vector("encoder.pos_conv.0.bias", dim)
        draw.vector("encoder.pos_conv.0.weight_g", 1, 1, settings["conv_pos"], around=1.0)
        draw.matrix("encoder.pos_conv.0.weight_v", dim, dim // groups, settings["conv_pos"])
    else:
        for number in range(depth):
            draw.matrix(f"encoder.pos_conv.{number}.0.weight", dim, dim // groups, max(3, settings["conv_pos"] // depth))
            draw.vector(f"encoder.pos_conv.{number}.0.bias", dim)
    for number in range(settings["encoder_layers"]):
        stem = f"encoder.layers.{number}"
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            draw.linear(f"{stem}.self_attn.{part}", dim, dim)
        heads = settings["encoder_attention_heads"]
        if settings.get("gru_rel_pos"):
            draw.vector(f"{stem}.self_attn.grep_a", 1, heads, 1, 1, around=1.0)
            draw.linear(f"{stem}.self_attn.grep_linear", dim // heads, 8)
        if settings.get("relative_position_embedding") and number == 0:
            draw.matrix(f"{stem}.self_attn.relative_attention_bias.weight", settings["num_buckets"], heads)
        draw.norm(f"{stem}.self_attn_layer_norm", dim)
        draw.linear(f"{stem}.fc1", dim, inner)
        draw.linear(f"{stem}.fc2", inner, dim)
        draw.norm(f"{stem}.final_layer_norm", dim)
    draw.norm("encoder.layer_norm", dim)


def wave(samples: int = 5_700) -> Tensor:
    """A sound for comparisons, with a mean that is not zero. It gives an odd number of frames."""
    generator = torch.Generator().manual_seed(7)
    time = torch.arange(samples, dtype=torch.float64) / 16_000
    tone = (2 * torch.pi * 220 * time).sin() + 0.5 * (2 * torch.pi * 1_730 * time).sin()
    return (0.1 * tone + 0.05 * torch.randn(samples, generator=generator, dtype=torch.float64) + 0.02).float()


def telling(state: Tensor) -> dict[str, Any]:
    """A few numbers that tell one state, (frames, dim), from any other."""
    numbers = state.detach().double().flatten()
    places = torch.linspace(0, numbers.numel() - 1, 8).long()
    return {
        "shape": list(state.shape),
        "mean": float(numbers.mean()),
        "std": float(numbers.std()),
        "values": numbers[places].tolist(),
    }


def compare(states: list[Tensor], case: str, family: str, tolerance: float = 1e-5) -> None:
    """Hold states against what the reference gave for the same file and sound; see the line "made by" of each list."""
    golden = json.loads((GOLDEN / f"{family}.json").read_text("utf-8"))["states"][case]
    assert len(states) == len(golden)
    for state, expected in zip(states, golden, strict=True):
        found = telling(state)
        assert found["shape"] == expected["shape"]
        scale = expected["std"]
        for name in ("mean", "std"):
            assert abs(found[name] - expected[name]) <= tolerance * scale, name
        for value, wanted in zip(found["values"], expected["values"], strict=True):
            assert abs(value - wanted) <= tolerance * max(scale, abs(wanted))


def save(folder: Path, content: dict[str, Any], name: str = "model.pt") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / name)
    return folder / name


def held(content: dict[str, Any]) -> Checkpoint:
    """What reading a file with this content gives, without the file."""
    tensors, facts = split(content)
    return Checkpoint(Path("model.pt"), tensors, facts)


def namespace(**settings: Any) -> Namespace:
    """Settings as fairseq kept them before it had a `cfg`."""
    return Namespace(**settings)

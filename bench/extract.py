"""Every layer of a HuBERT Base (random weights) for 40 clips of 2 to 15 s: our path, transformers', and S3PRL's.

    python -m bench.extract            each way in a process of its own, one line each
    python -m bench.extract WAY        one of them

The machine's matrix rate is measured before and after each way in the same process; `share` is what the way reaches of it,
counted over the operations of the model for the sound itself (convolutions, projections, attention), not for padding.
"""

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.machine import describe, matrix_rate, processor_seconds

CONVOLUTIONS = ((512, 10, 5), *((512, 3, 2),) * 4, *((512, 2, 2),) * 2)
DIM, INNER, BLOCKS, KERNEL, GROUPS = 768, 3_072, 12, 128, 16
WAYS = ["ours float32", "ours bfloat16", "alone float32", "eights float32", "eights bfloat16", "s3prl float32"]


def clips() -> list[Tensor]:
    """40 clips, 357 s in all, in no order."""
    generator = np.random.default_rng(0)
    lengths = generator.uniform(2, 15, 40)
    lengths *= 357.5 / lengths.sum()
    return [torch.from_numpy(generator.normal(0, 0.1, int(16_000 * length)).astype(np.float32)) for length in lengths]


def operations(samples: int) -> float:
    """Multiplications and additions of the model for a clip of so many samples."""
    total, frames, channels = 0.0, samples, 1
    for width, kernel, stride in CONVOLUTIONS:
        frames = (frames - kernel) // stride + 1
        total += 2 * frames * width * kernel * channels
        channels = width
    total += 2 * frames * channels * DIM + 2 * frames * DIM * (DIM // GROUPS) * KERNEL
    return total + BLOCKS * (2 * frames * (4 * DIM * DIM + 2 * DIM * INNER) + 4 * frames * frames * DIM)


def ours(dtype: torch.dtype) -> Callable[[list[Tensor]], None]:
    """As extraction does it: batches by length, every state pooled."""
    from pathlib import Path

    from engine import extract
    from engine.corpus import Utterance
    from engine.nets.wav2vec2 import Shape, Wav2Vec2
    from engine.rows import pool, segments
    from engine.upstream import Card

    shape = Shape(DIM, BLOCKS, 12, INNER, CONVOLUTIONS)
    card = Card("bench", "bench", BLOCKS, (DIM,) * 13, 320, 400, lambda card: model)
    torch.manual_seed(0)
    model = Wav2Vec2(card, shape).eval()

    def run(sounds: list[Tensor]) -> None:
        utterances = [Utterance(str(i), Path("."), sound.numel() / 16_000) for i, sound in enumerate(sounds)]
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            for batch in extract.batches(utterances, extract.BUDGET_SECONDS["cpu"]):
                hidden = model.encode([sounds[int(item.id)] for item in batch])
                rows = [
                    segments(item, "frame", count, 0.02, 10)
                    for item, count in zip(batch, hidden.lengths.tolist(), strict=True)
                ]
                for state in hidden.states:
                    pool(state, rows, "frame")

    return run


def transformers_way(dtype: torch.dtype, size: int) -> Callable[[list[Tensor]], None]:
    """As transformers' documentation shows it: padded batches with a mask; sorted by length, which it does not do itself."""
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(0)
    model = HubertModel(HubertConfig()).eval().to(dtype)

    def run(sounds: list[Tensor]) -> None:
        order = sorted(sounds, key=len, reverse=True) if size > 1 else sounds
        for first in range(0, len(order), size):
            batch = order[first : first + size]
            padded = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True).to(dtype)
            mask = torch.stack([torch.arange(padded.shape[1]) < len(sound) for sound in batch]).long()
            model(padded, attention_mask=mask if size > 1 else None, output_hidden_states=True)

    return run


def s3prl_way() -> Callable[[list[Tensor]], None]:
    """S3PRL 0.4.18's own class with batches of eight; sorted by length, which it does not do itself."""
    import tempfile

    import torchaudio

    torchaudio.set_audio_backend = lambda name: None  # gone from torchaudio; S3PRL calls it when it is imported
    from s3prl.upstream.hubert.expert import UpstreamExpert
    from s3prl.upstream.hubert.hubert_model import HubertConfig, HubertModel, HubertPretrainingConfig
    from s3prl.upstream.utils import merge_with_parent

    torch.manual_seed(0)
    symbols = [[str(number) for number in range(500)]]
    rate = {"label_rate": 50.0}  # all else has S3PRL's defaults, which are those of HuBERT Base
    fresh = HubertModel(merge_with_parent(HubertConfig, rate), merge_with_parent(HubertPretrainingConfig, rate), symbols)
    held = {"task_cfg": rate, "model_cfg": rate, "model_weight": fresh.state_dict(), "dictionaries_symbols": symbols}
    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        torch.save(held, file.name)
        model = UpstreamExpert(file.name).eval()
    del fresh, held

    def run(sounds: list[Tensor]) -> None:
        order = sorted(sounds, key=len, reverse=True)
        for first in range(0, len(order), 8):
            assert len(model(order[first : first + 8])["hidden_states"]) == BLOCKS + 1

    return run


def measure(way: str) -> dict[str, Any]:
    """Numbers of one way in this process."""
    import resource

    kind, name = way.split()
    dtype = getattr(torch, name)
    if kind == "s3prl":
        run = s3prl_way()
    else:
        run = ours(dtype) if kind == "ours" else transformers_way(dtype, 1 if kind == "alone" else 8)
    sounds = clips()
    seconds = sum(map(len, sounds)) / 16_000
    with torch.inference_mode():
        run(sorted(sounds, key=len)[:4])
        before = matrix_rate(dtype)
        began, spent = time.perf_counter(), processor_seconds()
        run(sounds)
        wall, processor = time.perf_counter() - began, processor_seconds() - spent
        after = matrix_rate(dtype)
    done = sum(operations(len(sound)) for sound in sounds) / 1e9
    return {
        "way": way,
        "sound_per_second": seconds / wall,
        "sound_per_processor_second": seconds / processor,
        "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "matrix_rate": (before.wall + after.wall) / 2,
        "matrix_rate_per_processor_second": (before.processor + after.processor) / 2,
        "share": done / processor / ((before.processor + after.processor) / 2),
        "machine": describe(),
    }


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(" ".join(sys.argv[1:]))))
        return
    print("way              s/s   s/cpu-s  peak GB  GFLOP/s  share of it   machine")
    installed = importlib.util.find_spec("s3prl") is not None
    for way in WAYS:
        if way.startswith("s3prl") and not installed:
            print(f"{way:16} not installed: pip install --no-deps s3prl==0.4.18")
            continue
        done = subprocess.run(
            [sys.executable, "-m", "bench.extract", *way.split()], capture_output=True, text=True, check=True
        )
        row = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{way:16} {row['sound_per_second']:5.1f} {row['sound_per_processor_second']:7.2f} {row['peak_gigabytes']:8.2f} "
            f"{row['matrix_rate']:8.0f} {row['share']:11.0%}   {row['machine']}",
            flush=True,
        )


if __name__ == "__main__":
    main()

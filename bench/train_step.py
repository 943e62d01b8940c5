"""Steps of pretexts on the processor: seconds, memory and share of the matrix rate, beside S3PRL's where it is installed.

    python -m bench.train_step [--steps 4] [--rounds 2] [--seconds 4.5] [WAY ...]

Each way runs in a process of its own, round after round, on the same clips: eight of about so many seconds. Ours are whole
runs of the pretext, timed from the end of the first step on, so that everything a step needs is in them; the first step also
computes the features, which stay in memory. S3PRL computes them at every step; its own data set, network and optimizer
are used, without its runner. `share` is what is reached of the machine's matrix rate, measured in the same process, counted
over the matrix products that are really done.
"""

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.machine import describe, matrix_rate, processor_seconds

CLIPS = 8
SMALL = {"width": 64, "heads": 4, "inner": 256}
WAYS: dict[str, dict[str, Any]] = {
    "mockingjay": {"run": "mockingjay"},
    "s3prl-mockingjay": {"features": "fbank"},
    "mockingjay-small": {"run": "mockingjay", **SMALL},
    "s3prl-mockingjay-small": {"features": "fbank", **SMALL},
    "tera": {"run": "tera"},
    "s3prl-tera": {"features": "mel", "band": 0.2},
    "tera-small": {"run": "tera", **SMALL},
    "s3prl-tera-small": {"features": "mel", "band": 0.2, **SMALL},
    "wav2vec2": {"run": "wav2vec2"},
    "hubert": {"run": "hubert"},
}


def write_clips(folder: Path, seconds: float) -> list[int]:
    """Noise in wave files, one more than a batch, for validation; gives the samples of each."""
    from scipy.io import wavfile

    generator = np.random.default_rng(0)
    samples = [int(16_000 * seconds * (0.95 + 0.1 * number / CLIPS)) for number in range(CLIPS + 1)]
    for number, count in enumerate(samples):
        sound = (generator.normal(0, 0.1, count).clip(-1, 1) * 32_767).astype(np.int16)
        place = folder / ("train" if number else "valid")
        place.mkdir(exist_ok=True)
        wavfile.write(place / f"clip{number}.wav", 16_000, sound)
    return samples


Run = Callable[[Callable[[], None]], None]  # calls what it is given at the end of each step


def ours(settings: dict[str, Any], folder: Path, seconds: float, steps: int) -> Run:
    """A whole run of a pretext. Its last step is followed by a validation, so there is one more than is timed."""
    from app import workbench
    from engine.run import Context

    marks: list[Callable[[], None]] = []

    class Watched(Context):
        def metric(self, step: int, **values: float) -> None:
            marks[0]()

    once = {"steps": steps + 2, "validate_every": 10**6, "checkpoint_every": 10**6}
    batch = {"batch_seconds": seconds * 1.06 * CLIPS}
    spec = workbench.resolve({**settings, **once, **batch, "corpus": f"folder:{folder}"})
    work = Path(tempfile.mkdtemp(dir=folder.parent))

    def run(mark: Callable[[], None]) -> None:
        marks.append(mark)
        spec.run(Watched(work, device="cpu"))

    return run


def s3prl(settings: dict[str, Any], folder: Path, samples: list[int], steps: int) -> Run:
    """S3PRL 0.4.18's data set, network and optimizer with the settings of its published configurations."""
    import torchaudio

    torchaudio.set_audio_backend = lambda name: None  # gone from torchaudio; S3PRL calls it when it is imported
    torchaudio.load = _read_wave  # what is there needs a decoder of its own
    sys.modules.setdefault("librosa", ModuleType("librosa"))  # for pictures, which are not drawn
    spec = importlib.util.find_spec("s3prl")
    assert spec is not None and spec.origin is not None
    home = Path(spec.origin).parent
    sys.path.insert(0, str(home))
    os.chdir(home)
    from optimizers import get_optimizer
    from pretrain.mockingjay.pretrain_expert import UpstreamPretrainExpert

    # Whether a clip is too long is asked in frames for Kaldi's features and in samples else.
    rows = [f"train/clip{number}.wav,{count // 160},x" for number, count in enumerate(samples[1:], 1)]
    (folder / "clips.csv").write_text("\n".join(["file_path,length,label", *rows]) + "\n")
    kaldi = {
        "kaldi": {
            "feat_type": "fbank",
            "fbank": {"num_mel_bins": 80, "frame_length": 25.0, "frame_shift": 10.0, "use_log_fbank": True},
        },
        "delta": {"order": 2, "win_length": 5},
        "cmvn": {"use_cmvn": True},
    }
    feature = {"feat_type": "mel", "channel": 0, "log": True, "delta": 0, "cmvn": True}
    mel = {
        "win_ms": 25,
        "hop_ms": 10,
        "n_freq": 201,
        "n_mels": 80,
        "n_mfcc": 13,
        "input": feature,
        "target": dict(feature),
        "target_level": -25,
    }
    width = settings.get("width", 768)
    config = {
        "transformer": {
            "hidden_size": width,
            "num_hidden_layers": 3,
            "num_attention_heads": settings.get("heads", 12),
            "intermediate_size": settings.get("inner", 3072),
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
            "initializer_range": 0.02,
            "layer_norm_eps": 1e-12,
            "share_layer": False,
            "pre_layer_norm": False,
        },
        "task": {
            "loss": "L1",
            "sequence_length": 1500,
            "position_encoding_size": width,
            "mask_proportion": 0.15,
            "mask_consecutive_min": 7,
            "mask_consecutive_max": 7,
            "mask_allow_overlap": True,
            "mask_bucket_ratio": 1.5,
            "mask_frequency": settings.get("band", 0),
            "noise_proportion": 0,
        },
        "audio": kaldi if settings["features"] == "fbank" else mel,
    }
    data = {
        "file_path": str(folder),
        "sets": ["clips"],
        "libri_root": str(folder),
        "train_batch_size": CLIPS,
        "max_timestep": 0,
        "num_workers": 0,
    }
    expert = UpstreamPretrainExpert(data, config, "cpu").train()
    optimizer = get_optimizer([expert.model], 10**6, {"name": "AdamW_with_schedule", "lr": 2e-4, "warmup_proportion": 0.07})

    def run(mark: Callable[[], None]) -> None:
        for step in range(1, steps + 2):
            for batch in expert.get_train_dataloader():
                loss, _ = expert(batch, global_step=step, log_step=10**9)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(expert.model.parameters(), 5.0)
                optimizer.step()
                optimizer.zero_grad()
            mark()

    return run


def _read_wave(file: str) -> tuple[torch.Tensor, int]:
    from scipy.io import wavfile

    rate, sound = wavfile.read(file)
    return torch.from_numpy(sound / np.float32(32_768))[None], rate


def measure(way: str, seconds: float, steps: int) -> dict[str, Any]:
    """Numbers of one way in this process."""
    settings = WAYS[way]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "clips"
        folder.mkdir()
        samples = write_clips(folder, seconds)
        os.environ["AUSCULT_WORKSPACE"] = str(Path(place) / "workspace")

        def make(steps: int) -> Run:
            return (
                s3prl(settings, folder, samples, steps) if "run" not in settings else ours(settings, folder, seconds, steps)
            )

        counter = FlopCounterMode(display=False)
        counts: list[float] = []
        with counter:
            make(1)(lambda: counts.append(counter.get_total_flops()))
        before = matrix_rate(torch.float32)
        marks: list[tuple[float, float]] = []
        make(steps)(lambda: marks.append((time.perf_counter(), processor_seconds())))
        after = matrix_rate(torch.float32)
    wall, processor = ((marks[steps][kind] - marks[0][kind]) / steps for kind in (0, 1))
    rate = (before.processor + after.processor) / 2
    done = (counts[1] - counts[0]) / 1e9
    return {
        "wall": wall,
        "processor": processor,
        "gigaoperations": done,
        "share": done / processor / rate,
        "rate": rate,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "machine": describe(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ways", nargs="*", metavar="WAY", help=", ".join(WAYS))
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.5)
    parser.add_argument("--alone", action="store_true", help="in this process, as JSON")
    asked = parser.parse_args()
    if asked.alone:
        print(json.dumps(measure(asked.ways[0], asked.seconds, asked.steps)))
        return
    installed = importlib.util.find_spec("s3prl") is not None
    if not installed:
        print("S3PRL is not installed: pip install --no-deps --target FOLDER s3prl==0.4.18, and that folder in PYTHONPATH.")
    print("| way | cpu-s a step | s a step | 10^9 operations | share of the matrix rate | peak GB | machine |")
    print("|---" * 7 + "|")
    numbers = ["--steps", str(asked.steps), "--seconds", str(asked.seconds), "--alone"]
    for _ in range(asked.rounds):
        for way in asked.ways or WAYS:
            if way.startswith("s3prl") and not installed:
                continue
            command = [sys.executable, "-m", "bench.train_step", way, *numbers]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"| {way} | failed: {done.stderr.strip().splitlines()[-1]} |", flush=True)
                continue
            row = json.loads(done.stdout.splitlines()[-1])
            print(
                f"| {way} | {row['processor']:.2f} | {row['wall']:.2f} | {row['gigaoperations']:.0f} | {row['share']:.0%} "
                f"of {row['rate']:.0f} | {row['peak']:.2f} | {row['machine']} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""Ten minutes in one piece through Base-size networks (random weights): time and peak memory, each in a process of its own.

python -m bench.long_clip          every network
python -m bench.long_clip NAME     one of them
"""

import json
import subprocess
import sys
import time

import numpy as np
import torch

from bench.machine import describe

SECONDS = 600
CONVOLUTIONS = ((512, 10, 5), *((512, 3, 2),) * 4, *((512, 2, 2),) * 2)
BUCKETS = {"hubert-base": 0, "wavlm-base": 320}  # of the relative position bias


def measure(name: str) -> dict[str, object]:
    """Numbers of one network in this process."""
    import resource

    from engine.nets.wav2vec2 import Shape, Wav2Vec2
    from engine.upstream import Card

    shape = Shape(768, 12, 12, 3072, CONVOLUTIONS, buckets=BUCKETS[name])
    card = Card(name, "bench", 12, (768,) * 13, shape.hop, shape.shortest, lambda card: model)
    torch.manual_seed(0)
    model = Wav2Vec2(card, shape).eval()
    wav = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, SECONDS * 16_000).astype(np.float32))
    began = time.perf_counter()
    with torch.inference_mode():
        hidden = model.encode([wav])
    assert len(hidden.states) == 13 and int(hidden.lengths[0]) == shape.frames(wav.numel())
    return {
        "network": name,
        "wall_seconds": time.perf_counter() - began,
        "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "states_gigabytes": sum(state.nbytes for state in hidden.states) / 2**30,
        "machine": describe(),
    }


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
        return
    print("network        s   peak GB  of it states  machine")
    for name in BUCKETS:
        done = subprocess.run([sys.executable, "-m", "bench.long_clip", name], capture_output=True, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        numbers = f"{row['wall_seconds']:4.0f} {row['peak_gigabytes']:8.2f} {row['states_gigabytes']:12.2f}"
        print(f"{name:12} {numbers}   {row['machine']}", flush=True)


if __name__ == "__main__":
    main()

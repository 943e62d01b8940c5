from pathlib import Path

import tiny

from checkpoints import Maker


def _maker(kind: str) -> Maker:
    def make(folder: Path) -> str:
        tiny.checkpoint(folder, kind, normalise=kind in {"wav2vec2-stable", "sew-layer-norm"})
        return f"hf:{folder}"

    return make


KINDS = (
    "wav2vec2",
    "wav2vec2-stable",
    "wav2vec2-pretraining",
    "hubert-batch-norm",
    "wavlm",
    "data2vec",
    "conformer-relative",
    "conformer-rotary",
    "wav2vec2-bert",
    "sew",
    "sew-layer-norm",
)
MAKE = {kind: _maker(kind) for kind in KINDS}

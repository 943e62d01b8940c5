from pathlib import Path

import tiny

from checkpoints import Maker


def _maker(kind: str) -> Maker:
    def make(folder: Path) -> str:
        tiny.checkpoint(folder, kind, normalise=kind == "wav2vec2-stable")
        return f"hf:{folder}"

    return make


KINDS = ("wav2vec2", "wav2vec2-stable", "hubert-batch-norm", "wavlm", "data2vec")
MAKE = {kind: _maker(kind) for kind in KINDS}

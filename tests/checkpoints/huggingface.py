from pathlib import Path

import tiny

from checkpoints import Maker


def _maker(kind: str) -> Maker:
    def make(folder: Path) -> str:
        tiny.checkpoint(folder, kind)
        return f"hf:{folder}"

    return make


MAKE = {kind: _maker(kind) for kind in ("sew-d", "moonshine", "speech-to-text")}

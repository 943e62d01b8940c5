"""Tiny checkpoints with random weights, in the layouts that upstreams read. They take the place of downloads in tests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

CONVOLUTIONS = ((8, 10, 5), *((8, 3, 2),) * 4, *((8, 2, 2),) * 2)
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


def _wav2vec2() -> Any:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    return Wav2Vec2Model(Wav2Vec2Config(**SMALL))


def _wav2vec2_one_block() -> Any:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    return Wav2Vec2Model(Wav2Vec2Config(**{**SMALL, "num_hidden_layers": 1, "num_attention_heads": 1}))


def _wav2vec2_stable() -> Any:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    return Wav2Vec2Model(Wav2Vec2Config(**SMALL, feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True))


def _wav2vec2_for_pretraining() -> Any:
    from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining

    return Wav2Vec2ForPreTraining(
        Wav2Vec2Config(
            **SMALL,
            num_codevectors_per_group=4,
            codevector_dim=8,
            proj_codevector_dim=8,
            adapter_attn_dim=4,
            feat_extract_norm="layer",
            do_stable_layer_norm=True,
        )
    )


def _hubert() -> Any:
    from transformers import HubertConfig, HubertModel

    return HubertModel(HubertConfig(**SMALL))


def _hubert_batch_norm() -> Any:
    from transformers import HubertConfig, HubertModel

    return HubertModel(HubertConfig(**SMALL, feat_proj_layer_norm=False, conv_pos_batch_norm=True))


def _wavlm() -> Any:
    from transformers import WavLMConfig, WavLMModel

    return WavLMModel(WavLMConfig(**SMALL, num_buckets=40, max_bucket_distance=60))


def _wavlm_stable() -> Any:
    from transformers import WavLMConfig, WavLMModel

    return WavLMModel(WavLMConfig(**SMALL, feat_extract_norm="layer", do_stable_layer_norm=True))


def _data2vec() -> Any:
    from transformers import Data2VecAudioConfig, Data2VecAudioModel

    return Data2VecAudioModel(Data2VecAudioConfig(**{**SMALL, "num_conv_pos_embeddings": 3}, conv_pos_kernel_size=7))


def _unispeech_sat() -> Any:
    from transformers import UniSpeechSatConfig, UniSpeechSatModel

    return UniSpeechSatModel(UniSpeechSatConfig(**SMALL))


MODELS: dict[str, Callable[[], Any]] = {
    "wav2vec2": _wav2vec2,
    "wav2vec2-one-block": _wav2vec2_one_block,
    "wav2vec2-stable": _wav2vec2_stable,
    "wav2vec2-pretraining": _wav2vec2_for_pretraining,
    "hubert": _hubert,
    "hubert-batch-norm": _hubert_batch_norm,
    "wavlm": _wavlm,
    "wavlm-stable": _wavlm_stable,
    "data2vec": _data2vec,
    "unispeech-sat": _unispeech_sat,
}


def scramble(model: torch.nn.Module, seed: int = 0) -> None:
    """Give every weight and statistic a value that matters; fresh models hold many ones and zeros."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        for statistic in model.buffers():
            if statistic.is_floating_point():
                statistic += torch.rand(statistic.shape, generator=generator)


def checkpoint(folder: Path, kind: str, *, normalise: bool = False) -> Any:
    """Save a model of transformers into a folder and return it, ready to compute with."""
    torch.manual_seed(0)
    model = MODELS[kind]().eval()
    scramble(model)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": normalise, "sampling_rate": 16_000}))
    return model

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


def _unispeech_for_pretraining() -> Any:
    from transformers import UniSpeechConfig, UniSpeechForPreTraining

    return UniSpeechForPreTraining(UniSpeechConfig(**SMALL, num_codevectors_per_group=4, codevector_dim=8))


def _conformer(positions: str, norm: str) -> Callable[[], Any]:
    def make() -> Any:
        from transformers import Wav2Vec2ConformerConfig, Wav2Vec2ConformerModel

        return Wav2Vec2ConformerModel(
            Wav2Vec2ConformerConfig(
                **{**SMALL, "hidden_size": 32},
                position_embeddings_type=positions,
                conv_depthwise_kernel_size=5,
                feat_extract_norm=norm,
                conv_bias=norm == "layer",
            )
        )

    return make


def _conformer_for_pretraining() -> Any:
    from transformers import Wav2Vec2ConformerConfig, Wav2Vec2ConformerForPreTraining

    sizes = dict(num_codevectors_per_group=4, codevector_dim=8, proj_codevector_dim=8)
    return Wav2Vec2ConformerForPreTraining(Wav2Vec2ConformerConfig(**SMALL, **sizes))


def _bert() -> Any:
    from transformers import Wav2Vec2BertConfig, Wav2Vec2BertModel

    sizes = {name: SMALL[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")}
    return Wav2Vec2BertModel(
        Wav2Vec2BertConfig(
            **sizes, conv_depthwise_kernel_size=5, left_max_position_embeddings=6, right_max_position_embeddings=3
        )
    )


def _sew(norm: str, width: int) -> Callable[[], Any]:
    def make() -> Any:
        from transformers import SEWConfig, SEWModel

        convolutions = dict(
            conv_dim=(8,) * 6 + (width,), conv_kernel=(10, 3, 1, 3, 3, 2, 2), conv_stride=(5, 2, 1, 2, 2, 2, 2)
        )
        return SEWModel(SEWConfig(**{**SMALL, **convolutions}, feat_extract_norm=norm))

    return make


def _sew_d() -> Any:
    from transformers import SEWDConfig, SEWDModel

    convolutions = dict(conv_dim=(8,) * 7, conv_kernel=(10, 3, 1, 3, 3, 2, 2), conv_stride=(5, 2, 1, 2, 2, 2, 2))
    return SEWDModel(SEWDConfig(**{**SMALL, **convolutions}, position_buckets=8, max_position_embeddings=16))


def _moonshine() -> Any:
    from transformers import MoonshineConfig, MoonshineModel

    sizes = dict(hidden_size=32, intermediate_size=24, vocab_size=20)
    both = {f"{part}_{name}": 2 for part in ("encoder", "decoder") for name in ("num_hidden_layers", "num_attention_heads")}
    return MoonshineModel(MoonshineConfig(**sizes, **both))


def _speech_to_text() -> Any:
    from transformers import Speech2TextConfig, Speech2TextModel

    sizes = dict(
        d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=24, vocab_size=20, conv_channels=16
    )
    return Speech2TextModel(Speech2TextConfig(**sizes, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=24))


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
    "unispeech-pretraining": _unispeech_for_pretraining,
    "conformer-relative": _conformer("relative", "group"),
    "conformer-rotary": _conformer("rotary", "layer"),
    "conformer-pretraining": _conformer_for_pretraining,
    "sew": _sew("group", 8),
    "sew-layer-norm": _sew("layer", 16),
    "sew-d": _sew_d,
    "moonshine": _moonshine,
    "speech-to-text": _speech_to_text,
    "wav2vec2-bert": _bert,
}


def scramble(model: torch.nn.Module, seed: int = 0) -> None:
    """Give every weight and statistic a value that matters; fresh models hold many ones and zeros."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        for name, statistic in model.named_buffers():
            if "running_" in name:  # others are tables that follow from the architecture
                statistic += torch.rand(statistic.shape, generator=generator)


def checkpoint(folder: Path, kind: str, *, normalise: bool = False) -> Any:
    """Save a model of transformers into a folder and return it, ready to compute with."""
    torch.manual_seed(0)
    model = MODELS[kind]().eval()
    scramble(model)
    model.save_pretrained(folder)
    preprocessor: dict[str, Any] = {"do_normalize": normalise, "sampling_rate": 16_000}
    if kind == "wav2vec2-bert":
        preprocessor = {"feature_extractor_type": "SeamlessM4TFeatureExtractor", "num_mel_bins": 80, "stride": 2}
    if kind == "speech-to-text":
        preprocessor = {"feature_extractor_type": "Speech2TextFeatureExtractor", "num_mel_bins": 80}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return model

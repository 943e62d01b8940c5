"""Loading and saving: what comes out, and that every change on the way is said."""

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch

from engine import audio
from engine.errors import Refused
from engine.settings import settings

SECONDS = 1.5


def _wave(rate: int, channels: int = 1) -> np.ndarray:
    time = np.arange(int(rate * SECONDS)) / rate
    wave = 0.4 * np.sin(2 * np.pi * 300 * time) * np.linspace(0.2, 1.0, len(time))
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def _encode(file: Path, codec: str, rate: int, container: str, **options: str) -> None:
    """What a browser's recorder or a telephone writes."""
    with av.open(str(file), "w", format=container, container_options=options) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.layout = "mono"
        fitter = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=rate)
        frame = av.AudioFrame.from_ndarray(_wave(rate).T.copy(), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        fifo = av.AudioFifo()
        for part in fitter.resample(frame) + fitter.resample(None):
            fifo.write(part)
        while part := fifo.read(stream.codec_context.frame_size or 1024) or fifo.read(0, partial=True):
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("name", "subtype", "rate"),
    [
        ("a.wav", "PCM_16", 44_100),
        ("b.wav", "PCM_24", 48_000),
        ("c.wav", "FLOAT", 16_000),
        ("d.wav", "ULAW", 8_000),
        ("e.flac", "PCM_16", 22_050),
        ("f.flac", "PCM_24", 44_100),
        ("g.ogg", "VORBIS", 44_100),
        ("h.mp3", "MPEG_LAYER_III", 44_100),
        ("i.aiff", "PCM_16", 32_000),
        ("j.caf", "PCM_16", 16_000),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_kind_gives_the_same_sound(tmp_path: Path, name: str, subtype: str, rate: int, channels: int) -> None:
    file = tmp_path / name
    soundfile.write(file, _wave(rate, channels), rate, subtype=subtype)
    sound = audio.load(file)
    assert sound.wave.dtype == torch.float32 and sound.wave.ndim == 1
    assert sound.seconds == pytest.approx(SECONDS, abs=0.001) and sound.seconds == len(sound.wave) / audio.SAMPLE_RATE
    clean = _wave(audio.SAMPLE_RATE)[:, 0]
    error = float(np.abs(sound.wave.numpy() - clean)[200:-200].max())
    assert error < (0.05 if subtype in ("VORBIS", "MPEG_LAYER_III", "ULAW") else 2e-4)
    said = ["Mixed 2 channels to one."] * (channels == 2) + [f"Resampled from {rate:,} Hz."] * (rate != 16_000)
    assert sound.changes == said
    assert audio.probe(file) == (pytest.approx(SECONDS, abs=0.001), rate, channels)
    # A cut is the same samples, also where the decoder has to seek.
    cut = audio.load(file, start=0.61, end=1.13)
    assert torch.equal(cut.wave, sound.wave[round(0.61 * 16_000) : round(1.13 * 16_000)])


@pytest.mark.parametrize(
    ("name", "codec", "rate", "container", "options"),
    [
        ("firefox.webm", "libopus", 48_000, "webm", {"live": "1"}),
        ("safari.mp4", "aac", 48_000, "mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("a.m4a", "alac", 44_100, "ipod", {}),
        ("a.mka", "flac", 44_100, "matroska", {}),
        ("a.amr", "libopencore_amrnb", 8_000, "amr", {}),
        ("a.aac", "aac", 44_100, "adts", {}),
    ],
)
def test_what_libsndfile_cannot_read(
    tmp_path: Path, name: str, codec: str, rate: int, container: str, options: dict[str, str]
) -> None:
    file = tmp_path / name
    try:
        _encode(file, codec, rate, container, **options)
    except (av.FFmpegError, av.codec.codec.UnknownCodecError):
        pytest.skip(f"This FFmpeg cannot write {codec}.")
    sound = audio.load(file)
    assert sound.seconds == pytest.approx(SECONDS, abs=0.06)  # encoders pad to whole frames
    assert sound.changes == [f"Resampled from {rate:,} Hz."]
    assert 0.3 < float(sound.wave.abs().max()) < 0.7  # AAC overshoots
    assert audio.probe(file).seconds == pytest.approx(sound.seconds, abs=0.05)
    cut = audio.load(file, start=0.5, end=1.0)
    assert torch.equal(cut.wave, sound.wave[8_000:16_000])


def test_a_cut_says_what_it_leaves(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    soundfile.write(file, _wave(16_000), 16_000)
    assert audio.load(file, seconds=0.5).changes == ["Only 0.5 s are used of 1.5 s."]
    assert audio.load(file, start=1.0, end=9.0).changes == ["The file ends at 1.500 s, before the end at 9.000 s."]
    with pytest.raises(Refused, match="no samples after 2 s"):
        audio.load(file, start=2.0)
    for start, end in [(-1.0, None), (1.0, 1.0), (float("nan"), None), (0.0, float("inf"))]:
        with pytest.raises(Refused, match="cannot run from"):
            audio.load(file, start=start, end=end)


def test_clipping_is_counted(tmp_path: Path) -> None:
    wave = _wave(16_000)
    wave[100:120] = 1.0
    soundfile.write(tmp_path / "a.wav", wave, 16_000)
    assert audio.load(tmp_path / "a.wav").changes == [
        "20 samples are at full scale or beyond: the recording is probably clipped."
    ]


def test_silence_is_fine(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    sound = audio.load(tmp_path / "a.wav")
    assert not sound.wave.any() and not sound.changes


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_not_a_number_is_refused_with_the_count(tmp_path: Path, value: float) -> None:
    wave = np.zeros(50_000)
    wave[[7, 900, 40_000]] = value
    soundfile.write(tmp_path / "a.wav", wave, 44_100, subtype="DOUBLE")
    with pytest.raises(Refused, match="holds 3 samples that are not finite"):
        audio.load(tmp_path / "a.wav")


def test_longer_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUSCULT_CLIP_SECONDS", "1")
    settings.cache_clear()
    soundfile.write(tmp_path / "a.wav", _wave(16_000), 16_000)
    with pytest.raises(Refused, match="lasts 2 s; at most 1 s"):
        audio.load(tmp_path / "a.wav")
    with pytest.raises(Refused, match="were asked for"):
        audio.load(tmp_path / "a.wav", start=0.1, end=1.4)
    assert audio.load(tmp_path / "a.wav", start=0.7, end=1.5).seconds == pytest.approx(0.8)


def test_what_is_saved_comes_back_bit_for_bit(tmp_path: Path) -> None:
    wave = torch.randn(5_000) * 0.2
    audio.save(tmp_path / "a.wav", wave)
    back = audio.load(tmp_path / "a.wav").wave
    assert float((back - wave).abs().max()) <= 0.5 / 32_768 + 1e-7
    audio.save(tmp_path / "b.wav", back)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "b.wav"]
    audio.save(tmp_path / "c.wav", np.array([2.0, -2.0, 0.0]))
    assert audio.load(tmp_path / "c.wav").wave.tolist() == [32_767 / 32_768, -1.0, 0.0]
    for bad in (torch.zeros(2, 5), torch.zeros(0), torch.tensor([float("nan")])):
        with pytest.raises(Refused):
            audio.save(tmp_path / "d.wav", bad)
    assert not (tmp_path / "d.wav").exists()

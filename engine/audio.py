"""Any sound file, safely: mono float32 at 16 kHz, and what was changed on the way.

Files are decoded in blocks from an open handle. A header is never believed about size, only regular files are opened, and
no decoder is given a file name, so none can be led to another file.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import Refused
from engine.resample import Resampler, Samples
from engine.settings import settings

SAMPLE_RATE = 16_000
MOST_CHANNELS = 64
RATES = (1_000, 768_000)
BLOCK = 2**20  # samples decoded at a time, all channels together
DENSEST = 8_000  # samples that one byte of a compressed file can hold at most (FLAC silence holds about 5,000)
FULL_SCALE = 32_767 / 32_768

# How a file begins -> the only FFmpeg demuxer it is given to. None of these opens other files.
DEMUXERS: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(begins, re.DOTALL), name)
    for begins, name in (
        (rb"\x1aE\xdf\xa3", "matroska,webm"),
        (rb"....(ftyp|moov|mdat|free|wide|skip)", "mov,mp4,m4a,3gp,3g2,mj2"),
        (rb"OggS", "ogg"),
        (rb"fLaC", "flac"),
        (rb"(RIFF|RF64)....WAVE", "wav"),
        (rb"RIFF....AVI ", "avi"),
        (rb"FORM....AIF[FC]", "aiff"),
        (rb"caff\0", "caf"),
        (rb"ID3|\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff]", "mp3"),
        (rb"\xff[\xf0\xf1\xf8\xf9]", "aac"),
        (rb"#!AMR", "amr"),
        (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
        (rb"wvpk", "wv"),
        (rb"MAC ", "ape"),
        (rb"TTA1", "tta"),
        (rb"\x0b\x77", "ac3"),
        (rb"FLV\x01", "flv"),
        (rb"G.{187}G.{187}G", "mpegts"),
        (rb"MPCK", "mpc8"),
        (rb"MP\+", "mpc"),
        (rb"DSD ", "dsf"),
    )
)
LISTS = re.compile(
    rb"\s*(#EXTM3U|ffconcat|\[playlist\]|v=0\r?\n|(REM|FILE|TITLE|PERFORMER)\s|<\?xml|<(asx|smil|MPD)\b)", re.I
)


@dataclass(frozen=True)
class Sound:
    """A mono waveform at 16 kHz and, in sentences, what was done to the file to get it."""

    wave: Tensor  # (samples,) float32
    seconds: float
    changes: list[str] = field(default_factory=list)


class Header(NamedTuple):
    """What a file says of itself; `seconds` is counted where it says nothing."""

    seconds: float
    sample_rate: int
    channels: int


def load(path: Path | str, *, start: float = 0.0, end: float | None = None, seconds: float | None = None) -> Sound:
    """The sound of a file from `start` to `end` in seconds, or its first `seconds` from there on.

    Refused where more than `settings().clip_seconds` would have to be decoded.
    """
    if not (0 <= start < float("inf")) or (end is not None and not start < end < float("inf")):
        raise Refused(f"A clip cannot run from {start} s to {end} s: times are seconds, the end after the start.")
    name, most = Path(path).name, settings().clip_seconds
    with _opened(path) as source:
        cut = end if seconds is None else min(end or float("inf"), start + seconds)
        if cut is not None and cut - start > most:
            raise Refused(f"{cut - start:,.0f} s of '{name}' were asked for; at most {most:,.0f} s are read at once.")
        if cut is None and source.announced is not None and source.announced / source.rate - start > most:
            raise Refused(
                f"'{name}' lasts {source.announced / source.rate:,.0f} s; at most {most:,.0f} s are read at once. "
                "Choose a start and an end, or cut the file."
            )
        changes = []
        if source.channels > 1:
            changes.append(f"Mixed {source.channels} channels to one.")
        if source.rate != SAMPLE_RATE:
            changes.append(f"Resampled from {source.rate:,} Hz.")
        wave = _gather(source, start, cut, most, changes)
        if seconds is not None and len(wave) >= round(seconds * SAMPLE_RATE) and source.more(cut):
            changes.append(f"Only {seconds:g} s are used; the file goes on after that.")
        elif end is not None and len(wave) < round((end - start) * SAMPLE_RATE) - 1 and cut == end:
            changes.append(f"The file ends at {start + len(wave) / SAMPLE_RATE:.3f} s, before the end at {end:.3f} s.")
    return Sound(torch.from_numpy(wave), len(wave) / SAMPLE_RATE, changes)


def probe(path: Path | str) -> Header:
    """Length, rate and channels of a file from its header; only where that is silent, the file is decoded to count."""
    with _opened(path) as source:
        frames = source.announced
        if frames is None:
            frames = sum(len(block) for block in source.blocks(0))
        if not frames:
            raise Refused(f"'{Path(path).name}' holds no samples.")
        return Header(frames / source.rate, source.rate, source.channels)


def save(path: Path | str, wave: Tensor | NDArray[Any]) -> None:
    """Write a mono 16 kHz waveform as 16-bit PCM WAV, beside and then renamed. What lies beyond full scale is clipped."""
    path = Path(path)
    samples = wave.detach().cpu().numpy() if isinstance(wave, Tensor) else np.asarray(wave)
    if samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all():
        raise Refused(f"Only a mono waveform of finite samples can be saved, not one of shape {samples.shape}.")
    whole = np.clip(np.rint(samples.astype(np.float64) * 32_768), -32_768, 32_767).astype(np.int16)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        soundfile.write(beside, whole, SAMPLE_RATE, subtype="PCM_16", format="WAV")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _gather(source: "_Source", start: float, end: float | None, most: float, changes: list[str]) -> Samples:
    # Everything is kept at 16 kHz mono, so memory follows the clip's length and not the file's rate or channels.
    stream = Resampler(source.rate, SAMPLE_RATE, round(start * SAMPLE_RATE)) if source.rate != SAMPLE_RATE else None
    begin = stream.needs if stream else round(start * SAMPLE_RATE)
    wanted = None if end is None else round(end * SAMPLE_RATE) - round(start * SAMPLE_RATE)
    wanted_frames = None if end is None else round(end * source.rate) - begin + (stream.reach * 2 if stream else 0)
    pieces: list[Samples] = []
    broken = clipped = read = made = 0
    for block in source.blocks(begin):
        if wanted_frames is not None and read + len(block) > wanted_frames:
            block = block[: wanted_frames - read]
        read += len(block)
        broken += int(block.size - np.isfinite(block).sum())
        clipped += int((np.abs(block) >= FULL_SCALE).sum())
        mono = block.mean(axis=1, dtype=np.float32) if block.shape[1] > 1 else block[:, 0]
        piece = stream.push(mono) if stream else np.ascontiguousarray(mono)
        pieces.append(piece)
        made += len(piece)
        if made > (most + 1) * SAMPLE_RATE:
            raise Refused(
                f"'{source.name}' goes on for more than {most:,.0f} s, which is as much as is read at once. "
                "Choose a start and an end, or cut the file."
            )
        if wanted_frames is not None and read >= wanted_frames:
            break
    if stream and read:
        pieces.append(stream.finish())
        made += len(pieces[-1])
    if broken:
        raise Refused(f"'{source.name}' holds {broken:,} samples that are not finite numbers (NaN or infinite).")
    if not made:
        where = f" after {start:g} s" if start else ""
        raise Refused(f"'{source.name}' holds no samples{where}.")
    if clipped > 2:
        changes.append(f"{clipped:,} samples are at full scale or beyond: the recording is probably clipped.")
    if source.announced is not None and begin + read < source.announced and wanted_frames != read:
        seconds, announced = (begin + read) / source.rate, source.announced / source.rate
        changes.append(f"The file ends early: {seconds:.3f} s of the announced {announced:.3f} s were read.")
    changes.extend(source.said)
    wave = np.empty(made if wanted is None else min(made, wanted), np.float32)
    at = 0
    for index, piece in enumerate(pieces):
        fits = piece[: len(wave) - at]
        wave[at : at + len(fits)] = fits
        at += len(fits)
        pieces[index] = fits[:0]  # the piece's memory is free again before the next is copied
    return wave


class _Source:
    """An open, checked sound file. `blocks` gives (frames, channels) float32 from a frame on."""

    def __init__(self, name: str, handle: IO[bytes], size: int) -> None:
        self.name = name
        self.said: list[str] = []
        self.announced: int | None = None  # frames by the header
        self.rate = self.channels = 0
        self._handle = handle
        head = handle.read(4096)
        if LISTS.match(head):
            raise Refused(f"'{name}' is a list that names other files, not a sound. Give the sound files themselves.")
        try:
            self._open_soundfile()
        except soundfile.LibsndfileError as error:
            self._open_av(head, error)
        self._check(size)

    def _check(self, size: int) -> None:
        if not RATES[0] <= self.rate <= RATES[1]:
            raise Refused(
                f"'{self.name}' claims {self.rate:,} samples a second; rates from {RATES[0]:,} to {RATES[1]:,} are read."
            )
        if self.channels > MOST_CHANNELS:
            raise Refused(f"'{self.name}' has {self.channels:,} channels; at most {MOST_CHANNELS} are read.")
        if self.announced is not None and self.announced * self.channels > DENSEST * size:
            raise Refused(
                f"The header of '{self.name}' lies: it claims {self.announced:,} frames, which a file of {size:,} bytes "
                "cannot hold."
            )
        if self.announced == 0:
            raise Refused(f"'{self.name}' holds no samples.")

    def _open_soundfile(self) -> None:
        self._handle.seek(0)
        file = soundfile.SoundFile(self._handle)
        self.rate, self.channels, self.announced = file.samplerate, file.channels, file.frames
        if self.announced >= 2**62:
            self.announced = None
        # libsndfile shortens a WAV or AIFF to what is there; its log tells what the header claimed.
        claim = re.search(r"(?:data|SSND) *: (\d+) \(should be (\d+)\)", file.extra_info)
        if claim and int(claim[2]) < int(claim[1]) < 0xFFFFFF00 and file.frames:
            got = int(claim[2]) / int(claim[1])
            seconds = file.frames / file.samplerate
            self.said.append(f"The file ends early: {seconds:.3f} s of the announced {seconds / got:.3f} s were read.")
        self._file = file
        self.blocks = self._soundfile_blocks

    def _soundfile_blocks(self, begin: int) -> Iterator[Samples]:
        size = max(256, BLOCK // self.channels)
        if begin:
            if self.announced is not None and begin >= self.announced:
                return
            self._file.seek(begin)
        read = begin
        while True:
            try:
                block = self._file.read(size, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError:
                if read == begin:
                    raise
                self.said.append(f"The file is damaged after {read / self.rate:.3f} s; what follows was left out.")
                return
            if not len(block):
                return
            read += len(block)
            yield block

    def _open_av(self, head: bytes, reason: Exception) -> None:
        import av

        demuxer = next((name for begins, name in DEMUXERS if begins.match(head)), None)
        if demuxer is None:
            raise Refused(f"'{self.name}' is not a sound file of a known kind (wav, flac, mp3, ogg, opus, m4a, webm ...).")
        self._handle.seek(0)
        try:
            self._container: Any = av.open(
                self._handle, format=demuxer, container_options={"protocol_whitelist": "pipe"}, metadata_errors="replace"
            )
        except Exception as error:
            raise Refused(f"'{self.name}' looks like {demuxer.split(',')[0]} but cannot be opened: {reason}") from error
        if not self._container.streams.audio:
            raise Refused(f"There is no sound in '{self.name}'.")
        self._stream = self._container.streams.audio[0]
        self._frames = self._av_frames()
        self._first = next(self._frames, None)
        if self._first is None:
            raise Refused(f"Nothing in '{self.name}' could be decoded.")
        self.rate, self.channels = self._first.sample_rate, self._first.layout.nb_channels
        length = self._stream.duration
        if length and self._stream.time_base and length > 0:
            self.announced = None if demuxer in _GUESSED else int(length * self._stream.time_base * self.rate)
        self.blocks = self._av_blocks

    def _av_frames(self) -> Iterator[Any]:
        import av

        lost = 0
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                yield from packet.decode()
            except av.FFmpegError:
                lost += 1
                if lost > 100:
                    break
        if lost:
            self.said.append(f"{lost} damaged packets could not be decoded and were left out.")

    def _av_blocks(self, begin: int) -> Iterator[Samples]:
        frame, skip = self._first, begin
        while frame is not None:
            if frame.sample_rate != self.rate or frame.layout.nb_channels != self.channels:
                self.said.append("The file changes its rate or channels on the way; what follows was left out.")
                return
            block = _floats(frame, self.channels)
            if skip < len(block):
                yield block[skip:]
            skip = max(0, skip - len(block))
            frame = next(self._frames, None)

    def more(self, seconds: float | None) -> bool:
        """Whether the header says that the file goes on after this time."""
        return seconds is not None and self.announced is not None and self.announced / self.rate > seconds + 1e-3

    def close(self) -> None:
        for opened in (getattr(self, "_file", None), getattr(self, "_container", None)):
            if opened is not None:
                opened.close()


# Demuxers that guess the length from the bit rate of the first frame.
_GUESSED = {"mp3", "aac", "ac3", "amr", "mpegts"}


def _floats(frame: Any, channels: int) -> Samples:
    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, channels)
    if values.dtype.kind == "f":
        return values.astype(np.float32, copy=False)  # type: ignore[no-any-return]
    scale = float(2 ** (8 * values.dtype.itemsize - 1))
    offset = scale if values.dtype.kind == "u" else 0.0
    return ((values.astype(np.float64) - offset) / scale).astype(np.float32)  # type: ignore[no-any-return]


@contextmanager
def _opened(path: Path | str) -> Iterator[_Source]:
    """A regular file that passed the gate; every failure of a decoder comes out as a sentence."""
    name = Path(path).name or str(path)
    try:
        # Without O_NONBLOCK, opening a pipe would wait for its writer.
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise Refused(f"There is no file '{path}'.") from None
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise Refused(f"'{name}' cannot be opened: {said}.") from None
    about = os.fstat(number)
    if not stat.S_ISREG(about.st_mode):
        os.close(number)
        raise Refused(f"'{name}' is not a regular file but a {_kind(about.st_mode)}.")
    with open(number, "rb") as handle:
        if about.st_size == 0:
            raise Refused(f"'{name}' is empty.")
        source = None
        try:
            source = _Source(name, handle, about.st_size)
            yield source
        except Refused:
            raise
        except Exception as error:
            raise Refused(f"'{name}' cannot be decoded: {error}") from error
        finally:
            if source is not None:
                source.close()


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device"}
    return kinds.get(stat.S_IFMT(mode), "device")

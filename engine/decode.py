"""Sound files to blocks of samples: libsndfile first, FFmpeg (PyAV) for what it cannot read.

Files are decoded in blocks from an open handle. A header is never believed about size, only regular files are opened, and
no decoder is given a file name, so none can be led to another file.
"""

import hashlib
import io
import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from engine.errors import Refused
from engine.members import member_of
from engine.resample import Samples

MOST_CHANNELS = 64
RATES = (1_000, 768_000)
BLOCK = 2**20  # samples decoded at a time, all channels together
SMALL = 256  # frames decoded at a time where a file is damaged
MOST_DAMAGED = 100  # packets, before the rest is given up
DENSEST = 8_000  # samples that one byte of a compressed file can hold at most (FLAC silence holds about 5,000)

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

# Demuxers that guess the length from the bit rate of the first frame.
GUESSING = {"mp3", "aac", "ac3", "amr", "mpegts"}
SLACK = 0.1  # seconds by which a container may misjudge the length of its compressed sound


class Source(ABC):
    """An open sound file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rate = 0
        self.channels = 0
        self.announced: int | None = None  # frames by the header, where it says
        self.slack = 0  # frames that the header may be wrong by without anything being lost
        self.damaged = False  # decoding ended before the file did
        self.said: list[str] = []  # what a person should know about the decoding, in sentences

    @abstractmethod
    def blocks(self, begin: int) -> Iterator[Samples]:
        """The sound from a frame on, as float32 of shape (frames, channels)."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the decoder."""

    def check(self, size: int) -> None:
        """Refuse what no file of so many bytes can hold, and what no recording is."""
        if not RATES[0] <= self.rate <= RATES[1]:
            low, high = RATES
            raise Refused(f"'{self.name}' claims {self.rate:,} samples a second; rates from {low:,} to {high:,} are read.")
        if self.channels > MOST_CHANNELS:
            raise Refused(f"'{self.name}' has {self.channels:,} channels; at most {MOST_CHANNELS} are read.")
        if self.announced is not None and self.announced * self.channels > DENSEST * size:
            raise Refused(
                f"The header of '{self.name}' lies: it claims {self.announced:,} frames, which a file of {size:,} bytes "
                "cannot hold."
            )
        if self.announced == 0:
            raise Refused(f"'{self.name}' holds no samples.")


class SoundFile(Source):
    """A file that libsndfile reads: WAV, FLAC, Ogg, MP3, AIFF, CAF ..."""

    def __init__(self, name: str, handle: IO[bytes], head: bytes) -> None:
        super().__init__(name)
        handle.seek(0)
        self._file = file = soundfile.SoundFile(handle)
        self.rate, self.channels = file.samplerate, file.channels
        self.announced = file.frames if file.frames < 2**62 else None
        if file.format in ("MP3", "OGG"):
            self.slack = round(SLACK * self.rate)
        # A FLAC header carries the MD5 of the samples (RFC 9639, 8.2); zeros where its encoder did not know it.
        self._sum = head[26:42] if head[:4] == b"fLaC" and head[4] & 0x7F == 0 and any(head[26:42]) else b""
        # libsndfile shortens a WAV or AIFF to what is there; its log tells what the header claimed.
        claim = re.search(r"(?:data|SSND) *: (\d+) \(should be (\d+)\)", file.extra_info)
        if claim and int(claim[2]) < int(claim[1]) < 0xFFFFFF00 and file.frames:
            announced = file.frames / file.samplerate * int(claim[1]) / int(claim[2])
            self.said.append(
                f"The file ends early: {file.frames / file.samplerate:.3f} s of the announced {announced:.3f} s were read."
            )

    def blocks(self, begin: int) -> Iterator[Samples]:
        if self.announced is not None and begin >= self.announced:
            return
        exact = self._file.format != "MP3"  # libsndfile's MP3 decoder needs frames before the one it is sent to
        self._file.seek(begin if exact else 0)
        width = {"PCM_S8": 1, "PCM_16": 2, "PCM_24": 3}.get(self._file.subtype, 0)
        verify = bool(self._sum and width and begin == 0)
        heard = hashlib.md5(usedforsecurity=False)
        at = begin if exact else 0
        size = max(SMALL, BLOCK // self.channels)
        while True:
            try:
                block = self._file.read(size, "int32" if verify else "float32", always_2d=True)
            except soundfile.LibsndfileError:
                if size > SMALL:  # what lies before the damage comes out in small blocks
                    size = SMALL
                    self._file.seek(at)
                    continue
                if at <= begin:
                    raise
                self.damaged = True
                self.said.append(f"The file is damaged after {at / self.rate:.3f} s; what follows was left out.")
                return
            if not len(block):
                break
            if verify:
                heard.update(_bytes(block, width))
                block = block.astype(np.float32) / np.float32(2**31)
            if at + len(block) > begin:
                yield block[max(0, begin - at) :]
            at += len(block)
        if verify and heard.digest() != self._sum:
            self.said.append("The sound does not match the checksum in the FLAC header: the file is damaged or was altered.")

    def close(self) -> None:
        self._file.close()


class Container(Source):
    """A file that FFmpeg reads through one chosen demuxer: MP4, WebM, WMA, AMR ... It is decoded in order, never sought."""

    def __init__(self, name: str, handle: IO[bytes], head: bytes) -> None:
        super().__init__(name)
        import av

        demuxer = next((kind for begins, kind in DEMUXERS if begins.match(head)), None)
        if demuxer is None:
            raise Refused(f"'{name}' is not a sound file of a known kind (wav, flac, mp3, ogg, opus, m4a, webm ...).")
        handle.seek(0)
        try:
            # No protocol at all: what this handle holds is all that can be read.
            container: Any = av.open(handle, format=demuxer, container_options={"protocol_whitelist": "none"})
        except (av.FFmpegError, ValueError) as error:
            said = getattr(error, "strerror", None) or error
            raise Refused(f"'{name}' looks like {demuxer.split(',')[0]} but cannot be opened: {said}.") from None
        self._container = container
        if not container.streams.audio:
            raise Refused(f"There is no sound in '{name}'.")
        self._stream = container.streams.audio[0]
        self._frames = self._decode()
        self._first = next(self._frames, None)
        if self._first is None:
            raise Refused(f"Nothing in '{name}' could be decoded.")
        self.rate, self.channels = self._first.sample_rate, self._first.layout.nb_channels
        self.slack = round(SLACK * self.rate)
        length = self._stream.duration
        if length and length > 0 and self._stream.time_base and demuxer not in GUESSING:
            self.announced = int(length * self._stream.time_base * self.rate)

    def _decode(self) -> Iterator[Any]:
        import av

        lost = 0
        packets = self._container.demux(self._stream)
        while lost <= MOST_DAMAGED:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                yield from packet.decode()
            except av.FFmpegError:
                lost += 1
        if lost:
            self.said.append(f"{lost} damaged packets could not be decoded and were left out.")

    def blocks(self, begin: int) -> Iterator[Samples]:
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

    def close(self) -> None:
        self._container.close()


@contextmanager
def opened(path: Path | str) -> Iterator[Source]:
    """A regular file that passed the gate; every failure of a decoder comes out as a sentence."""
    name = Path(path).name or str(path)
    member = member_of(path)
    try:
        if member is None:
            mode = os.stat(path).st_mode
            if not stat.S_ISREG(mode):  # asked before it is opened: opening a device can act on it, and a pipe waits
                raise Refused(f"'{name}' is not a regular file but a {_kind(mode)}.")
        handle = io.BufferedReader(_File(path) if member is None else member.open())
    except FileNotFoundError:
        raise Refused(f"There is no file '{path}'.") from None
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise Refused(f"'{name}' cannot be opened: {said}.") from None
    with handle:
        source = None
        try:
            size = handle.seek(0, os.SEEK_END)
            handle.seek(0)
            if size == 0:
                raise Refused(f"'{name}' is empty.")
            source = _source(name, handle)
            source.check(size)
            yield source
        except (Refused, GeneratorExit):
            raise
        except Exception as error:
            said = str(error).replace(repr(handle), "it").rstrip(".")
            raise Refused(f"'{name}' cannot be decoded: {said}.") from error
        finally:
            if source is not None:
                source.close()


class _File(io.FileIO):
    """A file for decoders that follow a damaged header: a seek to nowhere stays where it is."""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except OSError:
            return self.tell()


def _source(name: str, handle: IO[bytes]) -> Source:
    head = handle.read(4096)
    if LISTS.match(head):
        raise Refused(f"'{name}' is a list that names other files, not a sound. Give the sound files themselves.")
    try:
        return SoundFile(name, handle, head)
    except soundfile.LibsndfileError:
        return Container(name, handle, head)


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(mode), "device")


def _bytes(block: NDArray[np.int32], width: int) -> bytes:
    # The samples as FLAC sums them: little endian, as wide as they were; libsndfile gives them in the upper part of 32 bits.
    if width == 3:
        return block.astype("<i4").view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()
    return (block >> (32 - 8 * width)).astype(f"<i{width}").tobytes()


def _floats(frame: Any, channels: int) -> Samples:
    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, channels)
    if values.dtype.kind == "f":
        return values.astype(np.float32, copy=False)  # type: ignore[no-any-return]
    scale = float(2 ** (8 * values.dtype.itemsize - 1))
    offset = scale if values.dtype.kind == "u" else 0.0
    return ((values.astype(np.float64) - offset) / scale).astype(np.float32)  # type: ignore[no-any-return]

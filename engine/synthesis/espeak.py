"""The espeak-ng library (GPL), called in a process of its own: python espeak.py LIBRARY DATA < request > answer.

The request is JSON: a list of {"text", "voice", "rate", "pitch"}. The answer is, for each of them, a line of JSON
{"rate", "samples", "events": [[kind, place, length, sample, label], ...]} and then the samples as 16-bit little endian.
Standard library only, and nothing of Auscult: this file is run, never imported.
"""

import ctypes
import json
import sys
from typing import Any

WORD, PHONE, END = 1, 7, 0
SYNCHRONOUS = 2
PHONE_EVENTS, IPA, DO_NOT_EXIT = 0x1, 0x2, 0x8000
UTF8 = 1
RATE, PITCH = 1, 3  # espeak_PARAMETER


class _Label(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("letters", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("place", ctypes.c_int),
        ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user", ctypes.c_void_p),
        ("label", _Label),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def main(library: str, data: str) -> None:
    espeak = ctypes.CDLL(library)
    rate = espeak.espeak_Initialize(SYNCHRONOUS, 200, data.encode(), PHONE_EVENTS | IPA | DO_NOT_EXIT)
    if rate <= 0:
        sys.exit(f"espeak-ng did not start with its data in {data}.")
    sound = bytearray()
    events: list[list[Any]] = []

    def take(samples: Any, count: int, heard: Any) -> int:
        if samples and count > 0:
            sound.extend(ctypes.string_at(samples, count * 2))
        index = 0
        while heard[index].kind != END:
            event = heard[index]
            if event.kind in (WORD, PHONE):
                label = bytes(event.label.letters).decode("utf-8", "ignore") if event.kind == PHONE else ""
                events.append([event.kind, event.place, event.length, event.sample, label])
            index += 1
        return 0

    callback = _Callback(take)
    espeak.espeak_SetSynthCallback(callback)
    espeak.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
    answer = sys.stdout.buffer
    for wish in json.load(sys.stdin):
        sound.clear()
        events.clear()
        if espeak.espeak_SetVoiceByName(wish["voice"].encode()) != 0:
            sys.exit(f"espeak-ng has no voice called {wish['voice']}.")
        espeak.espeak_SetParameter(RATE, wish["rate"], 0)
        espeak.espeak_SetParameter(PITCH, wish["pitch"], 0)
        espeak.espeak_ng_SetRandSeed(1)
        text = wish["text"].encode()
        espeak.espeak_Synth(text, ctypes.c_size_t(len(text) + 1), 0, 1, 0, UTF8, None, None)
        espeak.espeak_Synchronize()
        about = {"rate": rate, "samples": len(sound) // 2, "events": events}
        answer.write(json.dumps(about).encode() + b"\n" + sound)
    answer.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

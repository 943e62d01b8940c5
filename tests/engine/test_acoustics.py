"""Tracks of sounds whose numbers are known beforehand."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from engine import acoustics

RATE = 16_000
TIME = torch.arange(RATE) / RATE


def tone(hertz: float) -> Tensor:
    return 0.3 * torch.sin(2 * math.pi * hertz * TIME + 0.1)


def pulses(hertz: float) -> Tensor:
    """All harmonics below 8 kHz, equally strong, as a pulse has them."""
    numbers = torch.arange(1, math.ceil(8000 / hertz))
    return 0.05 * torch.cos(2 * math.pi * hertz * numbers[:, None] * TIME).sum(0)


def hiss(seed: int = 0, samples: int = RATE) -> Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def band(low: float, high: float) -> Tensor:
    """Noise with nothing outside these frequencies."""
    spectrum = torch.fft.rfft(hiss())
    hertz = torch.arange(len(spectrum)) * (RATE / 2 / (len(spectrum) - 1))
    return torch.fft.irfft(spectrum * ((hertz >= low) & (hertz <= high)), n=RATE)


@pytest.mark.parametrize("hertz", [62.0, 80.0, 101.3, 150.0, 221.7, 330.0, 444.4, 590.0])
@pytest.mark.parametrize("sound", [tone, pulses])
def test_pitch_of_tones_and_pulse_trains_is_found_in_every_frame_and_no_octave_off(sound, hertz: float) -> None:
    found = acoustics.periodicity(sound(hertz))
    assert len(found.pitch) == 100
    assert float((found.pitch / hertz - 1).abs().max()) < 2e-3  # a frame without pitch is NaN and would fail too
    assert float(found.voicing.min()) > 0.97


def test_pitch_follows_a_glide() -> None:
    sweep = torch.linspace(100, 200, RATE)
    phase = 2 * math.pi * (sweep / RATE).cumsum(0)
    sound = sum(torch.cos(n * phase) / n for n in range(1, 20))
    middle = sweep[acoustics.HOP // 2 :: acoustics.HOP]
    found = acoustics.periodicity(0.1 * sound).pitch
    assert float((found / middle - 1).abs()[3:-3].max()) < 0.01


def test_a_missing_fundamental_is_heard() -> None:
    sound = pulses(150) - 0.05 * torch.cos(2 * math.pi * 150 * TIME)
    assert torch.allclose(acoustics.periodicity(sound).pitch, torch.tensor(150.0), rtol=2e-3)


def test_noise_and_what_is_far_softer_than_the_rest_have_no_pitch() -> None:
    assert bool(acoustics.periodicity(hiss()).pitch.isnan().all())
    soft = torch.cat([pulses(120), 1e-3 * pulses(120)])
    pitch = acoustics.periodicity(soft).pitch
    assert not bool(pitch[:95].isnan().any()) and bool(pitch[105:].isnan().all())


def test_a_moment_in_doubt_does_not_jump_by_an_octave() -> None:
    sound = tone(110) + tone(220)
    doubt = slice(RATE // 2 - 500, RATE // 2 + 500)
    sound[doubt] = tone(220)[doubt]  # for 62 ms nothing speaks for 110 Hz, and nothing against it
    assert float((acoustics.periodicity(sound).pitch / 110 - 1).abs().max()) < 0.02


@pytest.mark.parametrize("ratio", [0.0, 10.0, 20.0, 30.0])
def test_harmonicity_is_the_ratio_of_harmonics_to_noise(ratio: float) -> None:
    sound = torch.stack([torch.sin(2 * math.pi * 120 * k * TIME + k * k) / k for k in range(1, 50)]).sum(0)
    sound = 0.1 * sound / sound.square().mean().sqrt()
    mixed = sound + hiss() * 10 ** (-ratio / 20)
    assert float(acoustics.periodicity(mixed).harmonicity.mean()) == pytest.approx(ratio, abs=0.6)


def test_loudness_is_a_level() -> None:
    full = acoustics.loudness(torch.sin(2 * math.pi * 400 * TIME))  # ten whole periods in each window
    assert torch.allclose(full, torch.tensor(-3.0103), atol=1e-2)
    assert torch.allclose(acoustics.loudness(2 * hiss()) - acoustics.loudness(hiss()), torch.tensor(6.0206), atol=1e-3)
    assert set(acoustics.loudness(torch.zeros(RATE)).tolist()) == {-70.0}


def test_loudness_is_of_its_own_time() -> None:
    click = torch.zeros(RATE)
    click[160 * 50 + 80] = 1.0  # in the middle of frame 50
    heard = acoustics.loudness(click) > -60
    assert heard.nonzero().flatten().tolist() == [49, 50, 51]


@pytest.mark.parametrize("hertz", [100.0, 441.0, 3000.0])
def test_a_tone_crosses_zero_twice_a_period(hertz: float) -> None:
    assert float(acoustics.zero_crossings(tone(hertz)).mean()) == pytest.approx(2 * hertz / RATE, rel=0.02)


def test_alpha_ratio_weighs_low_against_high() -> None:
    low, high = band(100, 900), band(1200, 4800)
    low, high = (x / x.square().mean().sqrt() for x in (low, high))
    assert float(acoustics.alpha_ratio(0.1 * low + 0.01 * high).mean()) == pytest.approx(20.0, abs=1.0)
    assert float(acoustics.alpha_ratio(0.01 * low + 0.1 * high).mean()) == pytest.approx(-20.0, abs=1.0)
    # Noise has as much energy as a band is wide.
    assert float(acoustics.alpha_ratio(hiss()).mean()) == pytest.approx(10 * math.log10(950 / 4000), abs=0.8)


def test_rasta_does_not_hear_gain_and_hears_what_changes() -> None:
    sound = hiss()
    assert torch.allclose(acoustics.rasta(sound), acoustics.rasta(10 * sound), rtol=1e-3)
    resting = float(acoustics.rasta(torch.zeros(RATE)).mean())
    _, equal = acoustics._critical_bands()
    assert resting == pytest.approx(float((equal**0.33).sum()), rel=1e-4)  # nothing changes: every band is at its rest
    steady = acoustics.rasta(pulses(100))
    swinging = acoustics.rasta(pulses(100) * (1 + 0.9 * torch.sin(2 * math.pi * 4 * TIME)))
    assert float(swinging[10:-10].std()) > 20 * float(steady[10:-10].std())


def test_the_response_of_the_rasta_filter_is_that_of_its_paper() -> None:
    """A band that swings by a hair follows the gain of H(z) = 0.1 (2 + z^-1 - z^-3 - 2 z^-4) / (1 - 0.98 z^-1)."""
    time = torch.arange(7 * RATE) / RATE
    for swing in (1.0, 4.0, 12.0):
        depth = 0.01
        sound = pulses(100).repeat(7) * (1 + depth * torch.sin(2 * math.pi * swing * time))
        track = acoustics.rasta(sound).double()[400:-100].log()  # what the beginning leaves has died away
        turn = torch.exp(-2j * math.pi * swing * torch.arange(len(track)) * acoustics.FRAME)
        heard = float((track * turn).mean().abs()) * 2
        z = complex(math.cos(2 * math.pi * swing / 100), math.sin(2 * math.pi * swing / 100))
        gain = abs(0.1 * (2 + z**-1 - z**-3 - 2 * z**-4) / (1 - 0.98 * z**-1))
        blur = math.sin(math.pi * swing * 0.0125) / (math.pi * swing * 0.0125)  # of a Hann window of 25 ms, nearly
        # Every band hears the same swing in power (twice the depth), and all are raised to 0.33.
        assert heard == pytest.approx(0.33 * 2 * depth * gain * blur, rel=0.1)


@pytest.mark.parametrize("ratio", [0.0, 10.0, 25.0])
def test_the_signal_to_noise_ratio_is_found_where_there_are_pauses(ratio: float) -> None:
    speech = pulses(120)
    speech[: RATE // 3] = 0.0
    power = float(speech.square().mean())
    noisy = speech + hiss() / 0.1 * math.sqrt(power / 10 ** (ratio / 10))
    assert acoustics.signal_to_noise(noisy) == pytest.approx(ratio, abs=0.7)


def test_silence_and_snippets_give_numbers() -> None:
    for wave in (torch.zeros(RATE), torch.zeros(1), torch.ones(3000), hiss(samples=1), hiss(samples=90), hiss(samples=700)):
        made = acoustics.tracks(wave, acoustics.TRACKS)
        assert {name: len(track) for name, track in made.items()} == dict.fromkeys(
            acoustics.TRACKS, math.ceil(len(wave) / 160)
        )
        assert bool(made.pop("pitch").isnan().all())
        assert all(bool(track.isfinite().all()) for track in made.values())
    assert math.isnan(acoustics.signal_to_noise(torch.zeros(RATE)))
    assert acoustics.signal_to_noise(torch.cat([torch.zeros(RATE), hiss()])) == 60.0
    with pytest.raises(ValueError, match="one mono wave"):
        acoustics.tracks(torch.zeros(2, 100), ["loudness"])


def test_a_long_wave_is_worked_on_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = torch.cat([pulses(100), hiss(1), pulses(180)])
    whole = acoustics.tracks(sound, acoustics.TRACKS)
    monkeypatch.setattr(acoustics, "BLOCK", 37)
    for name, track in acoustics.tracks(sound, acoustics.TRACKS).items():
        assert torch.allclose(track, whole[name], rtol=1e-4, atol=1e-4, equal_nan=True), name


def test_the_mean_is_over_the_frames_whose_middle_lies_within() -> None:
    track = np.array([1.0, 2.0, np.nan, 4.0, 8.0])
    starts = np.array([0.0, 0.005, 0.006, 0.02, 0.012, 0.04, 0.3, 0.0])
    ends = np.array([0.02, 0.016, 0.016, 0.03, 0.013, 0.07, 0.4, 0.05])
    found = acoustics.over(track, starts, ends)
    assert found == pytest.approx([1.5, 1.5, 2.0, np.nan, 2.0, 8.0, 8.0, 3.75], nan_ok=True)

"""What is laid over a clip: how much of it, where, and at which ratio."""

import torch

from engine.nets.mixing import mix


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_at_most_half_is_covered_by_one_stretch_at_the_ratio_that_is_asked_for() -> None:
    wave = torch.full((1000,), 0.5)
    other = torch.full((300,), 0.1)
    lengths, places = [], []
    for seed in range(400):
        added = mix(wave, other, 6.0, draw(seed)) - wave
        covered = added.nonzero()[:, 0]
        assert len(covered) == covered[-1] - covered[0] + 1  # one stretch
        # 6 dB: the clip has 10^0.6 times the power of what is added.
        torch.testing.assert_close(0.25 / added[covered].square().mean(), torch.tensor(10**0.6), rtol=1e-4, atol=0)
        lengths.append(len(covered))
        places.append(int(covered[0]))
    assert max(lengths) <= 300 and min(lengths) < 20 and abs(sum(lengths) / 400 - 150) < 20
    assert min(places) < 30 and max(places) > 900
    longer = [int((mix(wave, wave, 0.0, draw(seed)) != wave).sum()) for seed in range(200)]
    assert max(longer) <= 500 < max(longer) + 30


def test_silence_is_neither_laid_over_nor_covered() -> None:
    wave = torch.randn(400, generator=draw(1))
    assert torch.equal(mix(wave, torch.zeros(400), 0.0, draw(2)), wave)
    assert torch.equal(mix(torch.zeros(400), wave, 0.0, draw(2)), torch.zeros(400))
    assert torch.equal(mix(wave[:1], wave, 0.0, draw(2)), wave[:1])

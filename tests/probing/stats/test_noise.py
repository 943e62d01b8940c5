"""The noise to signal ratio of a layer against hand-made matrices."""

import pytest
import torch

from probing.stats import noise


def test_a_scaled_copy_gives_the_scale() -> None:
    clean = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    for norm in ("frobenius", "spectral"):
        assert noise.ratio(clean, clean * 1.25, norm=norm) == pytest.approx(0.25)  # type: ignore[arg-type]
    assert noise.ratio(clean, clean) == 0.0


def test_the_norms_differ_as_they_should() -> None:
    clean = torch.diag(torch.tensor([3.0, 4.0]))
    noisy = clean + torch.diag(torch.tensor([1.0, 1.0]))
    assert noise.ratio(clean, noisy) == pytest.approx(2**0.5 / 5)
    assert noise.ratio(clean, noisy, norm="spectral") == pytest.approx(1 / 4)


def test_centring_takes_the_constant_component_out_of_the_signal_only() -> None:
    clean = torch.tensor([[101.0], [99.0]])
    noisy = clean + 1.0
    assert noise.ratio(clean, noisy, centred=True) == pytest.approx(1.0)
    assert noise.ratio(clean, noisy) < 0.011


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one clip"):
        noise.ratio(torch.zeros(3, 2), torch.zeros(4, 2))

import torch
from torch import Tensor

from engine.recent import Recent


def test_what_was_used_last_is_not_made_again_and_the_oldest_goes_first() -> None:
    made: list[int] = []

    def make(index: int) -> tuple[Tensor]:
        made.append(index)
        return (torch.full((10,), float(index)),)  # 40 bytes

    recent = Recent(make, most=100)
    assert [float(recent[index][0][0]) for index in (1, 2, 1)] == [1, 2, 1] and made == [1, 2]
    assert float(recent[3][0][0]) == 3  # 2 was used longest ago
    assert float(recent[1][0][0]) == 1 and made == [1, 2, 3]
    assert float(recent[2][0][0]) == 2 and made == [1, 2, 3, 2]


def test_one_that_is_too_large_is_held_until_the_next() -> None:
    made: list[int] = []

    def make(index: int) -> tuple[Tensor]:
        made.append(index)
        return (torch.zeros(1000),)

    recent = Recent(make, most=10)
    assert recent[0] is recent[0] and made == [0]
    assert len(recent[1][0]) == 1000
    assert len(recent[0][0]) == 1000 and made == [0, 1, 0]

import pytest

from engine.errors import Refused
from engine.nets.conv_strings import parse

WAV2VEC2 = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[(512, 10, 8, 4)] + [(512, 3, 2)] * 4", ((512, 10, 8, 4), *((512, 3, 2),) * 4)),
        (WAV2VEC2, ((512, 10, 5), *((512, 3, 2),) * 4, *((512, 2, 2),) * 2)),
        ("[(8, 2, 1), (8, 3, 1),]", ((8, 2, 1), (8, 3, 1))),
        ("  ([(4, 1, 1)] * 2) * 3", ((4, 1, 1),) * 6),
        ("[]", ()),
    ],
)
def test_lists_are_read_as_python_would(text: str, expected: tuple[tuple[int, ...], ...]) -> None:
    assert parse(text) == expected
    assert list(expected) == eval(text.strip())


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "[(512, 10, 5) for _ in range(9)]",
        "[(512, 10, 5)][0]",
        "[(512, 10.0, 5)]",
        "[(True, 1, 1)]",
        "[(512, -1, 5)]",
        "[(512, 0, 5)]",
        f"[({2**20 + 1}, 1, 1)]",
        "[512, 10, 5]",
        "(512, 10, 5)",
        "[()]",
        "[(1, 1, 1)] * 1000 * 1000 * 1000",
        "[(1, 1, 1)] * 150 + [(1, 1, 1)] * 51",
        "2 * [(1, 1, 1)]",
        "[(1, 1, 1)] - [(1, 1, 1)]",
        "[(1, 1, 1)",
        "(" * 900,
        "[" * 99 + "]" * 99,
        "\0",
        "",
    ],
)
def test_everything_else_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(Refused, match="is no list of convolutions; it should read like"):
        parse(text)


@pytest.mark.parametrize("text", [None, [[512, 10, 5]], 7, "[(1, 1, 1)]" + " " * 2000])
def test_no_text_and_endless_text_are_refused(text: object) -> None:
    with pytest.raises(Refused, match="A text that lists convolutions is expected"):
        parse(text)

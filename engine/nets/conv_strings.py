"""How fairseq writes a stack of convolutions: "[(512, 10, 5)] + [(512, 3, 2)] * 4". Nothing of it is run."""

import ast
from typing import Any

from engine.errors import Refused

LONGEST_TEXT = 2000
MOST_LAYERS = 200
LARGEST_NUMBER = 2**20


def parse(text: Any) -> tuple[tuple[int, ...], ...]:
    """The layers that such a text names, each a tuple; only numbers, lists, tuples, + and * may stand there."""
    if not isinstance(text, str) or len(text) > LONGEST_TEXT:
        raise Refused(f"A text that lists convolutions is expected, like '[(512, 10, 5)] * 2', but there is {_short(text)}.")
    try:
        layers = _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _refused(text) from error
    if not isinstance(layers, list) or len(layers) > MOST_LAYERS:
        raise _refused(text)
    if not all(isinstance(layer, tuple) and layer for layer in layers):
        raise _refused(text)
    if not all(type(number) is int and 0 < number <= LARGEST_NUMBER for layer in layers for number in layer):
        raise _refused(text)
    return tuple(layers)


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Add) and isinstance(left, list) and isinstance(right, list):
            return left + right
        many = isinstance(node.op, ast.Mult) and isinstance(left, list) and type(right) is int
        if many and len(left) * right <= MOST_LAYERS:
            return left * right
    raise ValueError


def _refused(text: str) -> Refused:
    return Refused(
        f"{_short(text)} is no list of convolutions; it should read like '[(512, 10, 5)] + [(512, 3, 2)] * 4', "
        f"with at most {MOST_LAYERS} of them."
    )


def _short(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= 100 else f"{said[:100]} ..."

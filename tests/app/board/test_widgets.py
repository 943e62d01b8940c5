"""What Board's pages share."""

import csv
import io

import pytest

from app.board import widgets


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", " =1"])
def test_no_cell_is_a_formula(cell: str) -> None:
    (_, (said,)) = csv.reader(io.StringIO(widgets.as_csv([{"a": cell}]), newline=""))
    assert said == f"'{cell}"


def test_csv_holds_every_column_and_exact_numbers() -> None:
    text = widgets.as_csv([{"a": 0.1, "b": "x,y"}, {"b": None, "c": True, "=d": -1.5}])
    assert list(csv.reader(io.StringIO(text, newline=""))) == [
        ["a", "b", "c", "'=d"],
        ["0.1", "x,y", "", ""],
        ["", "", "True", "-1.5"],
    ]

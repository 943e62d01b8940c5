import textwrap
from pathlib import Path

import pytest

from engine.errors import Unknown
from engine.registry import Registry
from engine.run import RunSpec

RUN = """
    from engine.run import Context, Result, RunSpec

    class {name}(RunSpec):
        "Counts."
        def run(self, ctx: Context) -> Result:
            return Result([{{"value": {value}}}])
"""


def drop(workspace: Path, stem: str, source: str) -> Path:
    file = workspace / "extensions" / "suites" / f"{stem}.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(source))
    return file


@pytest.fixture
def registry() -> Registry[RunSpec]:
    return Registry(RunSpec, "engine.suites")  # type: ignore[type-abstract]


def test_a_dropped_file_is_found_under_its_stem(registry: Registry[RunSpec], workspace: Path) -> None:
    drop(workspace, "counting", RUN.format(name="Anything", value=1))
    assert registry.get("counting").name == "counting"
    assert registry.get("counting").title() == "Counting"


def test_a_file_dropped_in_later_is_found_and_a_removed_one_forgotten(registry: Registry[RunSpec], workspace: Path) -> None:
    before = set(registry.classes())
    file = drop(workspace, "later", RUN.format(name="Later", value=1))
    assert set(registry.classes()) - before == {"later"}
    file.unlink()
    assert set(registry.classes()) == before


def test_a_broken_file_is_reported_and_harms_nothing(registry: Registry[RunSpec], workspace: Path) -> None:
    drop(workspace, "good", RUN.format(name="Good", value=1))
    drop(workspace, "bad", "import no_such_module_anywhere")
    assert "good" in registry.classes()
    (broken,) = [file for file in registry.broken if file.file.stem == "bad"]
    assert "no_such_module_anywhere" in broken.error


def test_a_name_of_the_house_cannot_be_taken(workspace: Path) -> None:
    from engine.corpus import Corpus

    registry: Registry[Corpus] = Registry(Corpus, "engine.corpora")  # type: ignore[type-abstract]
    taken = sorted(registry.classes())[0]
    file = workspace / "extensions" / "corpora" / f"{taken}.py"
    file.parent.mkdir(parents=True)
    file.write_text("x = 1\n")
    assert registry.classes()[taken].__module__ == f"engine.corpora.{taken}"
    assert "taken" in registry.broken[0].error


def test_an_unknown_name_says_what_is_near(registry: Registry[RunSpec], workspace: Path) -> None:
    drop(workspace, "counting", RUN.format(name="Counting", value=1))
    with pytest.raises(Unknown, match="There is no suite called 'countin'. Did you mean counting"):
        registry.get("countin")

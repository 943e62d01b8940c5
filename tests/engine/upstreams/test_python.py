"""Modules of a person's own: what a factory must give, what is found out about it, and who may start it."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app import cli, workbench
from engine import upstream
from engine.errors import Refused
from engine.job import JobStore, State
from engine.live import Live
from engine.settings import HOUSE, allow_own_code, settings

# The ten lines that docs/extend.md shows.
PAGE = (HOUSE / "docs" / "extend.md").read_text("utf-8")
RECIPE = re.findall(r"^## [^\n]*`mine\.py`\n.*?```python\n(.*?)```", PAGE, re.M | re.S)[0]

CENTRED = """
import torch
from torch import nn

class Centred(nn.Module):
    hop, shortest = 160, 201

    def forward(self, wave):
        return [torch.stft(wave, 400, 160, window=torch.hann_window(400), return_complex=True).abs().T]
"""

Write = Callable[[str, str], str]


@pytest.fixture
def write(workspace: Path) -> Iterator[Write]:
    """Writes a module into the user's extensions and gives the name before the factory's."""
    folder = workspace / "extensions"
    folder.mkdir(exist_ok=True)
    written = []

    def put(stem: str, text: str) -> str:
        # An import leaves a mark behind, so that it is seen where there must be none.
        mark = "import pathlib; pathlib.Path(__file__).with_suffix('.imported').touch()\n"
        (folder / f"{stem}.py").write_text(text + "\n" + mark)
        written.append(stem)
        return f"python:{stem}"

    yield put
    for stem in written:
        sys.modules.pop(stem, None)
    if str(folder) in sys.path:
        sys.path.remove(str(folder))


@pytest.fixture
def allowed() -> None:
    allow_own_code(True)


def is_imported(name: str) -> bool:
    return (settings().extensions / f"{name.split(':')[1]}.imported").exists()


def waves(*lengths: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [0.2 * torch.randn(length, generator=generator) for length in lengths]


def test_the_recipe_of_the_guide(allowed: None, write: Write) -> None:
    name = f"{write('recipe_mine', RECIPE)}:Mine"
    card = upstream.find(name)
    assert (card.name, card.layers, card.dims, card.hop, card.shortest) == (name, 1, (320, 16), 320, 320)
    assert (card.about, card.parameters, card.differentiable) == ("An encoder of my own.", 320 * 16 + 16, True)
    model = upstream.load(name)
    clips = waves(320, 9_000, 16_000)
    hidden = model.encode(clips)
    assert hidden.lengths.tolist() == [1, 28, 50]
    for number, clip in enumerate(clips):
        frames = clip[: len(clip) // 320 * 320].view(-1, 320)
        torch.testing.assert_close(hidden.clip(number)[0], frames)
        torch.testing.assert_close(hidden.clip(number)[1], model.encode([clip]).clip(0)[1])
    with pytest.raises(Refused, match="needs at least 320 samples"):
        model.encode(waves(319))


def test_frames_are_counted_as_the_module_counts_them(allowed: None, write: Write) -> None:
    name = f"{write('recipe_centred', CENTRED)}:Centred"
    card = upstream.find(name)
    assert (card.layers, card.dims, card.hop, card.shortest) == (0, (201,), 160, 201)
    model = upstream.load(name)
    for samples in (201, 319, 320, 321, 16_000, 12_345):
        assert model.encode(waves(samples)).lengths.tolist() == [1 + samples // 160] == [model.frames(samples)]
    clip = waves(4_000)[0].requires_grad_()
    model.encode([clip]).states[0].square().sum().backward()
    assert clip.grad is not None and clip.grad.abs().sum() > 0


def test_a_factory_may_give_an_upstream(allowed: None, write: Write) -> None:
    loudness = "from engine import upstream\n\ndef again():\n    card = upstream.find('mfcc')\n    return card.open(card)\n"
    name = f"{write('recipe_upstream', loudness)}:again"
    clips = waves(8_000)
    assert torch.equal(upstream.load(name).encode(clips).states[0], upstream.load("mfcc").encode(clips).states[0])
    assert upstream.load(name).card.name == name and upstream.find(name).hop == 160


def test_no_gradient_is_promised_where_there_is_none(allowed: None, write: Write) -> None:
    blind = RECIPE.replace("return [frames, self.layer(frames)]", "return [frames.detach(), self.layer(frames)]")
    name = f"{write('recipe_blind', blind)}:Mine"
    assert not upstream.find(name).differentiable
    states = upstream.load(name).encode([waves(4_000)[0].requires_grad_()]).states
    assert not any(state.requires_grad for state in states)


def test_another_weight_is_another_revision(allowed: None, write: Write) -> None:
    more = "\nimport torch\n\ndef other():\n    torch.manual_seed(1)\n    return Mine()\n\ndef same():\n    return Mine()\n"
    stem = write("recipe_twice", RECIPE + more)
    before = torch.random.get_rng_state()
    revisions = [upstream.find(f"{stem}:{factory}").revision for factory in ("Mine", "same", "other")]
    assert revisions[0] == revisions[1] != revisions[2]
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("hop = 320", "hop = 0"), "has no attribute `hop`"),
        (("hop = 320", "hop = 160"), "would give one frame more; but 16,000 samples give 50 frames and 16,160 give 50"),
        (("[frames, self", "[frames[: 100], self"), "have the shapes .*as many frames"),
        (("[frames, self.layer(frames)]", "frames"), "It gave Tensor; the list of its layers is expected"),
        (
            ("[frames, self", "[frames] if len(wave) < 17000 else [frames[:-1]] or [self"),
            "gave 148 frames for 47,999 samples, where",
        ),
        (
            ("return [frames", "assert len(wave) > 9000, 'too short'\n        return [frames"),
            "AssertionError at .*too short",
        ),
        (("super().__init__()", "super().__init__(); 1 / 0"), "failed: ZeroDivisionError at .*recipe_wrong"),
        (("class Mine", "import nowhere_at_all\nclass Mine"), "cannot be imported: ModuleNotFoundError"),
        (("class Mine(nn.Module)", "Mine = 3\nclass Other(nn.Module)"), "has no function or class called 'Mine'"),
        (
            ("class Mine(nn.Module)", "def Mine(): return 3\nclass Other(nn.Module)"),
            "made int; a torch.nn.Module is expected",
        ),
    ],
)
def test_what_does_not_fit_is_said(allowed: None, write: Write, change: tuple[str, str], sentence: str) -> None:
    assert change[0] in RECIPE
    stem = write(f"recipe_wrong_{abs(hash(change))}", RECIPE.replace(*change))
    with pytest.raises(Refused, match=sentence):
        upstream.find(f"{stem}:Mine")


@pytest.mark.parametrize("place", ["", "mine", "mine:", ":Mine", "mine:Mine()", "../mine:Mine", "mine:a.b", "os; x:y"])
def test_only_a_module_and_a_factory_are_a_name(allowed: None, place: str) -> None:
    with pytest.raises(Refused, match="is not of the form"):
        upstream.find(f"python:{place}")


def test_a_page_cannot_start_it(write: Write, workspace: Path) -> None:
    name = f"{write('recipe_forbidden', RECIPE)}:Mine"
    clip = str(HOUSE / "assets" / "clips" / "man.wav")
    for named in (name, f"random:{name}"):
        with pytest.raises(Refused, match="code of your own, which no page can start"):
            upstream.find(named)
        document = {"run": "listen", "upstream": named, "clip": clip}
        assert "no page can start" in workbench.resolve(document).needs()[0]
        with pytest.raises(Refused, match="no page can start"):
            workbench.submit(document)
        with pytest.raises(Refused, match="no page can start"):
            workbench.submit({"run": "smoke", "upstreams": ["fbank", named]})
    assert list(JobStore()) == [] and not is_imported(name)


def test_the_warm_process_does_not_import_it_whatever_its_environment_says(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{write('recipe_warm', RECIPE)}:Mine"
    monkeypatch.setenv("AUSCULT_OWN_CODE", "1")
    warm = Live([*workbench.COMMAND, "live"])
    try:
        with pytest.raises(Refused, match="no page can start"):
            warm.ask({"run": "listen", "upstream": name, "clip": str(HOUSE / "assets" / "clips" / "man.wav")})
    finally:
        warm.close()
    assert not is_imported(name)


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Types words into the command line."""
    monkeypatch.setattr(sys, "argv", ["launch.py", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
        raise SystemExit(0)
    return int(end.value.code or 0)


def test_a_worker_imports_it_for_a_job_from_a_command_line_only(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{write('recipe_worked', RECIPE)}:Mine"
    document: dict[str, Any] = {"run": "listen", "upstream": name, "clip": str(HOUSE / "assets" / "clips" / "man.wav")}
    sneaked = JobStore().submit(document)  # past every check of a page
    assert call(monkeypatch, "worker", str(sneaked.folder)) == 1
    assert sneaked.status().state is State.FAILED and "no page can start" in sneaked.status().reason
    assert not is_imported(name)

    assert call(monkeypatch, "run", "listen", *(f"{key}={value}" for key, value in document.items() if key != "run")) == 0
    (job,) = [job for job in JobStore() if job.id != sneaked.id]
    assert job.status().own_code and job.status().state is State.FINISHED and is_imported(name)


def test_layers_of_it_are_written(write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = f"{write('recipe_layers', RECIPE)}:Mine"
    clip, out = HOUSE / "assets" / "clips" / "man.wav", tmp_path / "layers.npz"
    assert call(monkeypatch, "layers", name, str(clip), "--out", str(out)) == 0
    with np.load(out) as arrays:
        assert arrays["man/1"].shape == (len(arrays["man/0"]), 16) and arrays["hop_seconds"] == 0.02

"""The upstreams that come with Auscult: small, whole, and better on phones than their twins and filterbanks."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
import yaml

from app import workbench
from engine import upstream
from engine.upstreams.trained import SHIPPED, _measured

FOLDERS = sorted(card.parent for card in SHIPPED.glob("*/card.json"))


def card(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "card.json").read_text("utf-8")))


def test_there_is_one_of_each_paradigm_in_few_bytes() -> None:
    kinds = {card(folder)["spec"]["run"] for folder in FOLDERS}
    assert kinds >= {"tera", "apc", "cpc", "wav2vec2", "hubert", "data2vec"}
    assert sum(file.stat().st_size for folder in FOLDERS for file in folder.glob("*.safetensors")) < 25_000_000


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_its_recipe_is_ours_its_curve_falls_and_its_layers_are_finite(folder: Path) -> None:
    spec = card(folder)["spec"]
    ours = {recipe.file.stem: recipe.document for recipe in workbench.recipes()}[folder.name.replace("-", "_")]
    assert spec == yaml.safe_load((folder / "recipe.yaml").read_text("utf-8"))
    assert workbench.resolve(dict(ours)).document == workbench.resolve(dict(spec)).document

    # What was measured is what lies here.
    assert card(folder)["revision"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:12]

    curve = pandas.read_csv(folder / "curve.csv")
    valid = curve[curve["split"] == "valid"]["loss"]
    assert valid.notna().all() and len(valid) > 5
    if spec["run"] != "data2vec":  # whose targets grow as it learns
        assert valid.iloc[-1] < valid.iloc[0]

    model, twin = upstream.load(folder.name), upstream.load(f"random:{folder.name}")
    wave = torch.randn(16_000, generator=torch.Generator().manual_seed(0)) / 10
    found, theirs = model.encode([wave]).clip(0), twin.encode([wave]).clip(0)
    assert [state.shape[1] for state in found] == card(folder)["dims"]
    assert all(state.isfinite().all() for state in found)
    assert not any(torch.allclose(one, other, atol=1e-3) for one, other in zip(found[1:], theirs[1:], strict=True))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_it_was_measured_to_know_more_of_phones_than_its_twin_and_filterbanks(folder: Path) -> None:
    phone = card(folder)["scores"]["phone"]
    assert phone["this"]["low"] > phone["untrained"]["high"]
    assert phone["this"]["low"] > phone["fbank"]["high"]


def test_the_card_says_what_was_measured() -> None:
    known = {"value": 0.724, "low": 0.7, "high": 0.75, "layer": 3}
    scores = {"phone": {"corpus": "spoken:x", "unit": "frame", "this": known, "fbank": {**known, "value": 0.586}}}
    assert _measured(scores) == "phone of each frame of spoken:x 0.72 (fbank 0.59)"
    assert "fbank" in upstream.find("hubert-small").measured and not upstream.find("fbank").measured

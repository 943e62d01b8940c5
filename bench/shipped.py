"""Makes the upstreams that come with Auscult: trains their recipes, and measures what they know and what they cost.

    python -m bench.shipped NAME ...

Trains recipes/NAME.yaml, reads phones and speakers from every layer of the result, of its untrained twin and of
filterbanks, on voices that none has learnt from, and writes assets/upstreams/NAME (dashes for underscores): weights, recipe,
card with what was measured, and the curve of the training.
"""

import argparse
import hashlib
import json
import shutil
from dataclasses import asdict

import pandas
from safetensors.torch import load, save

from app import workbench
from bench.machine import describe
from bench.pretexts import PROBES, best, run
from engine import corpus
from engine.job import JobStore
from engine.run import Result, write_text
from engine.upstreams.trained import SHIPPED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+")
    asked = parser.parse_args()
    print(describe())
    recipes = {recipe.file.stem: recipe.document for recipe in workbench.recipes()}
    for recipe in asked.names:
        id, trained, seconds = run(dict(recipes[recipe]))
        name = recipe.replace("_", "-")
        ship(id, trained, name)
        scores = {label: _score(name, label) for label in PROBES}
        told = SHIPPED / name / "card.json"
        write_text(told, json.dumps({**json.loads(told.read_text("utf-8")), "scores": scores}, indent=1))
        size = sum(file.stat().st_size for file in told.parent.iterdir())
        print(f"{name}: {seconds:.0f} s, {size / 1e6:.1f} MB, {json.dumps(scores)}", flush=True)


def ship(id: str, trained: Result, name: str) -> None:
    """Copy what a job has made into the folder of that name, its weights in 16 bits, with what is known of it."""
    made, folder = JobStore().get(id).folder / "artifacts" / "upstream", SHIPPED / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(made, folder)
    weights = load((made / "model.safetensors").read_bytes())
    content = save({name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()})
    (folder / "model.safetensors").write_bytes(content)
    card = json.loads((folder / "card.json").read_text("utf-8"))
    spec = card["spec"]
    voices = {one.speaker for one in corpus.find(spec["corpus"]).utterances() if one.split == "train"}
    heard = f"{float(trained.facts['seconds_of_sound']) / 3600:.1f} h of synthetic sentences in {len(voices)} voices"
    kind = workbench.runs()[spec["run"]].title()
    card |= {
        "revision": hashlib.sha256(content).hexdigest()[:12],
        "license": "Apache-2.0",
        "about": f"A small {kind}, trained on {heard}; it comes with Auscult and needs no network.",
        "data": heard.capitalize(),
        "languages": ["en"],
    }
    write_text(folder / "card.json", json.dumps(card, indent=1))
    curve = pandas.DataFrame(trained.table)
    write_text(folder / "curve.csv", curve.to_csv(index=False, float_format="%.5g"))


def _score(upstream: str, label: str) -> dict[str, object]:
    """What the best layer knows, beside its twin and filterbanks: accuracies with their intervals over draws."""
    floor = "fbank" if label == "phone" else "fbank-raw"
    document = {"run": "linear_probe", "upstreams": [upstream], "baselines": [floor], "control": False, "repeats": 5}
    _, result, _ = run({**document, **PROBES[label]})
    named = {"this": upstream, "untrained": f"random:{upstream}", floor: floor}
    return {**PROBES[label], **{key: asdict(best(result, name)) for key, name in named.items()}}


if __name__ == "__main__":
    main()

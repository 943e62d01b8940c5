"""Listen in a browser: drawn without a click, one playhead in every view, any sound file, both themes, errors in place."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from engine.settings import HOUSE

STAGE = ".st-stage"
VIEWS = ("wave", "mel", "map", "alike", "plane")
DRAWN_SECONDS = 60

# How many colours the painted layer of a view holds, drawn points included.
COLOURS = """view => {
    const canvas = document.querySelector(`[data-view=${view}] .st-back`);
    const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data, seen = new Set();
    for (let i = 0; i < data.length; i += 4) if (data[i + 3]) seen.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
    return seen.size;
}"""
# Where the playhead stands on the upper layer of a view, in pixels from its left and from its top.
PLAYHEAD = """view => {
    const canvas = document.querySelector(`[data-view=${view}] .st-front`), {width, height} = canvas;
    const colour = getComputedStyle(document.querySelector('.st-stage')).getPropertyValue('--au-play').trim();
    const want = [1, 3, 5].map(i => parseInt(colour.slice(i, i + 2), 16));
    const data = canvas.getContext('2d').getImageData(0, 0, width, height).data;
    const across = new Array(width).fill(0), down = new Array(height).fill(0);
    for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
        const i = 4 * (y * width + x);
        if (data[i + 3] > 200 && want.every((value, c) => Math.abs(value - data[i + c]) < 40)) { across[x]++; down[y]++; }
    }
    const most = counts => Math.max(...counts) ? counts.indexOf(Math.max(...counts)) : -1;
    return {x: most(across), y: most(down), width, height};
}"""


def state(page: Any) -> dict[str, Any]:
    """What the stage says of itself: number of the scene, time, layer, frame."""
    told: dict[str, Any] = page.evaluate(f"() => ({{...document.querySelector('{STAGE}').dataset}})")
    return told


def wait_for_scene(page: Any, after: int = 0) -> None:
    """Until a scene later than `after` is drawn and nothing is being computed."""
    page.wait_for_function(
        f"after => {{ const stage = document.querySelector('{STAGE}');"
        " return Number(stage?.dataset.number) > after && !stage.classList.contains('st-working'); }",
        arg=after,
        timeout=DRAWN_SECONDS * 1000,
    )
    page.wait_for_timeout(100)


@pytest.fixture
def listen(page: Any) -> Any:
    """The page with its first scene drawn; nobody has clicked."""
    page.goto("/studio/")
    wait_for_scene(page)
    return page


@pytest.fixture
def shoot(page: Any, tmp_path: Path) -> Any:
    """Take a screenshot: into docs/images where AUSCULT_SCREENSHOTS asks for it, else beside the test's files."""
    folder = HOUSE / "docs" / "images" if os.environ.get("AUSCULT_SCREENSHOTS") else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    return lambda name: page.screenshot(path=str(folder / f"{name}.png"))


def test_drawn_without_a_click(listen: Any, shoot: Any) -> None:
    assert [view for view in VIEWS if listen.evaluate(COLOURS, view) < 5] == []
    assert "heard by" in listen.locator(".st-by").inner_text()
    assert "16,000 Hz" in listen.locator(".st-sound").inner_text() and "frames" in listen.locator(".st-facts").inner_text()
    fits = "() => document.documentElement.scrollHeight <= innerHeight && document.documentElement.scrollWidth <= innerWidth"
    assert listen.evaluate(fits), "The page is larger than 1280 x 720."
    shoot("listen")


def test_a_click_moves_the_playhead_in_every_view(listen: Any, shoot: Any) -> None:
    box = listen.locator("[data-view=map] .st-back").bounding_box()
    listen.mouse.click(box["x"] + 0.7 * box["width"], box["y"] + 5)
    told = state(listen)
    seconds = float(listen.locator(".st-clock").inner_text().split("/")[1].split()[0])
    share = float(told["time"]) / seconds
    assert 0.6 < share < 0.75
    assert told["layer"] == listen.locator(".st-layer input").get_attribute("max"), "The top row is the last layer."
    for view in ("wave", "mel", "map"):
        stands = listen.evaluate(PLAYHEAD, view)
        assert stands["x"] == pytest.approx(46 + share * (stands["width"] - 54), abs=2), view
    square = listen.evaluate(PLAYHEAD, "alike")
    side = min(square["width"] - 36, square["height"] - 18)
    assert square["x"] - 28 == pytest.approx(share * side, abs=0.03 * side)
    assert side - square["y"] == pytest.approx(square["x"] - 28, abs=2)
    before = listen.evaluate(PLAYHEAD, "plane")
    listen.keyboard.press("Home")
    after = listen.evaluate(PLAYHEAD, "plane")
    assert before["x"] > 0 and (before["x"], before["y"]) != (after["x"], after["y"])
    listen.locator("[data-view=alike] .st-back").click(position={"x": 28 + side / 2, "y": side / 4})
    assert float(state(listen)["time"]) == pytest.approx(seconds / 2, abs=0.04 * seconds)
    listen.locator("[data-choose=colour] [data-id=phone]").click()
    shoot("listen-phones")


def test_scrubbing_layers_is_instant_and_redraws_both_views(listen: Any) -> None:
    pictures = "() => ['alike', 'plane'].map(view => document.querySelector(`[data-view=${view}] .st-back`).toDataURL())"
    slider = listen.locator(".st-layer input")
    first = listen.evaluate(pictures)
    spent = listen.evaluate(
        """async () => {
            const slider = document.querySelector('.st-layer input'), spent = [];
            for (let layer = 0; layer <= Number(slider.max); layer++) {
                const began = performance.now();
                slider.value = layer;
                slider.dispatchEvent(new Event('input', {bubbles: true}));
                await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
                spent.push(performance.now() - began);
            }
            return spent;
        }"""
    )
    assert sorted(spent)[len(spent) // 2] < 60
    slider.fill("0")
    second = listen.evaluate(pictures)
    assert first[0] != second[0] and first[1] != second[1]
    assert "input of the first block" in listen.locator(".st-layer").inner_text()


def test_keys_play_and_move(listen: Any) -> None:
    listen.locator(STAGE).focus()
    listen.keyboard.press("Space")
    listen.wait_for_function(f"() => Number(document.querySelector('{STAGE}').dataset.time) > 0.1")
    listen.locator(".st-play[aria-label=Pause]").wait_for()
    listen.keyboard.press("Space")
    listen.locator(".st-play[aria-label=Play]").wait_for()
    listen.keyboard.press("Home")
    for _ in range(3):
        listen.keyboard.press("ArrowRight")
    assert state(listen)["frame"] == "3"
    layer = int(state(listen)["layer"])
    listen.keyboard.press("ArrowDown")
    assert int(state(listen)["layer"]) == layer - 1


def test_dark_and_back(listen: Any, shoot: Any) -> None:
    ground = "() => getComputedStyle(document.querySelector('.st-stage')).backgroundColor"
    light = listen.evaluate(ground)
    listen.get_by_label("Switch between light and dark").click()
    assert listen.evaluate(ground) != light
    assert [view for view in VIEWS if listen.evaluate(COLOURS, view) < 5] == []
    shoot("listen-dark")
    listen.reload()
    wait_for_scene(listen)
    assert listen.evaluate(ground) != light, "The choice is remembered."


def test_another_page_and_back_loses_nothing(listen: Any) -> None:
    listen.keyboard.press("ArrowDown")
    listen.locator("[data-choose=measure] [data-id=deviation]").click()
    before = state(listen)
    listen.get_by_role("tab", name="Jobs").click()
    listen.wait_for_timeout(500)
    listen.get_by_role("tab", name="Listen").click()
    listen.wait_for_timeout(300)
    after = state(listen)
    assert (after["number"], after["layer"], after["time"]) == (before["number"], before["layer"], before["time"])
    assert listen.locator("[data-choose=measure] [aria-checked=true]").inner_text() == "Deviation"
    assert listen.evaluate(COLOURS, "map") >= 5


def test_wav_mp3_flac_and_ogg_are_drawn(listen: Any, tmp_path: Path, shoot: Any) -> None:
    seconds = np.arange(44_100) / 44_100
    sweep = 0.3 * np.sin(2 * np.pi * (300 + 600 * seconds) * seconds)
    for ending, style in (("wav", {"subtype": "FLOAT"}), ("mp3", {}), ("flac", {}), ("ogg", {})):
        file = tmp_path / f"sweep.{ending}"
        soundfile.write(file, np.stack([sweep, sweep], 1), 44_100, **style)
        before = int(state(listen)["number"])
        clear = listen.locator(".au-own button[aria-label=Clear]")
        if clear.count():
            clear.click()
            wait_for_scene(listen, before)
            before = int(state(listen)["number"])
        listen.locator(".au-own input[type=file]").set_input_files(str(file))
        wait_for_scene(listen, before)
        assert listen.locator(".st-clip").inner_text() == file.name
        said = listen.locator(".st-sound").inner_text()
        assert "Mixed 2 channels to one." in said and "Resampled from 44,100 Hz." in said
        assert [view for view in VIEWS if listen.evaluate(COLOURS, view) < 5] == []
    shoot("listen-upload")


def test_a_file_that_is_no_sound_is_refused_in_place(listen: Any, complaints: Any, tmp_path: Path, shoot: Any) -> None:
    complaints.allowed.append("Waveform load error")  # Gradio's own small player says so too
    file = tmp_path / "notes.wav"
    file.write_text("these are notes, not sound " * 20)
    listen.locator(".au-own input[type=file]").set_input_files(str(file))
    panel = listen.locator(".st-alert")
    panel.wait_for(state="visible", timeout=DRAWN_SECONDS * 1000)
    assert "notes.wav" in panel.inner_text() and "Traceback" not in panel.inner_text()
    assert listen.locator(".toast-body").count() == 0
    shoot("listen-refused")
    listen.locator(".au-samples input").first.click()
    panel.wait_for(state="hidden", timeout=DRAWN_SECONDS * 1000)
    assert [view for view in VIEWS if listen.evaluate(COLOURS, view) < 5] == []

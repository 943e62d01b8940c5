"""A form is filled in, its job watched to its end, and its result opened: in Studio and in Board, as a person would."""

import os
from pathlib import Path
from typing import Any

import pytest

from engine.settings import HOUSE

PATIENCE = 90_000  # milliseconds that a busy machine may need for one step

# A run that is small enough to be watched: a probe for words on a few spoken digits.
CORPUS = "spoken:digits?voices=6&takes=1"

# The figures follow when the browser goes dark: their titles are light.
DARK_FIGURE = """() => {
    const title = document.querySelector('.stPlotlyChart .gtitle');
    return title && Math.min(...getComputedStyle(title).fill.match(/\\d+/g).map(Number)) > 150;
}"""


# Streamlit looks for its server below the address of the page first, then where it is.
DEEP_LINK = r"responded with a status of 404"


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Where screenshots go: into the documentation when it is being made."""
    return HOUSE / "docs" / "images" if os.environ.get("AUSCULT_SCREENSHOTS") == "1" else tmp_path


def open_run(page: Any, query: str) -> None:
    page.goto(f"/studio/?tab=run&{query}")
    page.locator("#run-add").wait_for(timeout=PATIENCE)


def test_from_form_to_result(page: Any, shots: Path) -> None:
    open_run(page, "run=linear_probe")
    choose(page, "corpus", CORPUS)
    choose(page, "unit", "word")
    choose(page, "label", "word")
    page.wait_for_function("() => document.querySelector('#run-command').textContent.includes('voices=6')")
    no_overlap(page, "#page-run .au-field, #run-notice, #run-add, #run-command, #run-yaml")
    page.screenshot(path=shots / "run.png")

    # An error stands at its field, and nothing is queued.
    page.get_by_role("spinbutton", name="Repeats").fill("99")
    page.locator("#field-repeats .au-field-error").wait_for(timeout=PATIENCE)
    assert "less than or equal to 10" in page.locator("#field-repeats .au-field-error").text_content()
    page.get_by_role("spinbutton", name="Repeats").fill("3")
    page.locator("#field-repeats .au-field-error").wait_for(state="detached", timeout=PATIENCE)

    page.locator("#run-add").click()
    link = page.get_by_role("link", name="Watch it in Jobs")
    link.wait_for(timeout=PATIENCE)
    id = link.get_attribute("href").partition("job=")[2]
    link.click()

    row = page.locator(f'tr[data-id="{id}"]')
    row.wait_for(timeout=PATIENCE)
    assert row.get_attribute("aria-selected") == "true"
    row.locator(".au-is-finished").first.wait_for(timeout=2 * PATIENCE)
    # A reload comes back to the same job.
    page.reload()
    row.wait_for(timeout=PATIENCE)
    assert row.get_attribute("aria-selected") == "true"
    no_overlap(page, "#jobs-table, #job-head, #jobs-curves, #jobs-log")
    page.screenshot(path=shots / "jobs.png")

    page.locator("#job-board").click()
    page.wait_for_url(f"**/board/?job={id}", timeout=PATIENCE)
    page.locator(".stPlotlyChart .main-svg").first.wait_for(timeout=PATIENCE)
    page.get_by_role("tab", name="What made it").wait_for(timeout=PATIENCE)
    page.screenshot(path=shots / "results.png")
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(DARK_FIGURE, timeout=PATIENCE)
    page.screenshot(path=shots / "results-dark.png")


def choose(page: Any, field: str, value: str) -> None:
    """Write a value into a field that offers some."""
    box = page.locator(f"#field-{field} input")
    box.fill(value)
    box.press("Enter")


def no_overlap(page: Any, selector: str) -> None:
    """No two of these lie on each other, and none leaves the page to the right."""
    boxes = [box for one in page.locator(selector).all() if one.is_visible() and (box := one.bounding_box())]
    assert boxes
    for box in boxes:
        assert box["x"] >= 0 and box["x"] + box["width"] <= 1280
    for place, one in enumerate(boxes):
        for other in boxes[place + 1 :]:
            apart = (
                one["x"] + one["width"] <= other["x"] + 1
                or other["x"] + other["width"] <= one["x"] + 1
                or one["y"] + one["height"] <= other["y"] + 1
                or other["y"] + other["height"] <= one["y"] + 1
            )
            assert apart, f"{one} lies on {other}"


def test_a_training_is_tried_first_and_heard(page: Any, complaints: Any, shots: Path) -> None:
    complaints.allowed.append(DEEP_LINK)
    open_run(page, "recipe=mockingjay_smoke")
    choose(page, "corpus", CORPUS)
    page.wait_for_function("() => document.querySelector('#run-command').textContent.includes('voices=6')")

    # What does not fit together is said, and nothing is tried.
    page.get_by_role("spinbutton", name="Heads").fill("5")
    page.locator("#run-notice").get_by_text("not a multiple of the 5 heads").wait_for(timeout=PATIENCE)
    page.locator("#run-preflight").click()
    assert page.get_by_role("link", name="Watch it in Jobs").count() == 0
    page.screenshot(path=shots / "preflight-refused.png")
    page.get_by_role("spinbutton", name="Heads").fill("4")
    page.locator("#run-notice").get_by_text("Ready to run").wait_for(timeout=PATIENCE)

    page.locator("#run-preflight").click()
    link = page.get_by_role("link", name="Watch it in Jobs")
    link.wait_for(timeout=PATIENCE)
    id = link.get_attribute("href").partition("job=")[2]
    link.click()
    page.locator(f'tr[data-id="{id}"] .au-is-finished').first.wait_for(timeout=2 * PATIENCE)
    page.locator("#job-board").click()
    page.locator("audio").nth(3).wait_for(timeout=PATIENCE)  # the first four clips, as the network is given them
    page.locator(".stPlotlyChart .main-svg").first.wait_for(timeout=PATIENCE)
    page.screenshot(path=shots / "preflight.png")


SLOW = '''
import time

from pydantic import Field

from engine.run import Context, Result, RunSpec


class Slow(RunSpec):
    """Counts, and takes its time."""

    family = "analysis"

    steps: int = Field(400, ge=1, description="How far to count.")

    def run(self, ctx: Context) -> Result:
        ctx.note("Counting began.")
        for step in range(self.steps):
            ctx.progress(step, self.steps, "Counting")
            ctx.metric(step, train_loss=1 / (1 + step), valid_loss=1.1 / (1 + step), rate=0.001)
            time.sleep(0.1)
        return Result([{"steps": self.steps}])
'''


def test_dropped_file_is_run_watched_cancelled_and_resumed(page: Any, server: Any, complaints: Any, shots: Path) -> None:
    complaints.allowed.append(DEEP_LINK)
    # A list of choices may tell of its change just when its form is replaced; Gradio then has no function for it any more.
    complaints.allowed.append("status of 500")
    open_run(page, "run=linear_probe")
    folder = server.workspace / "extensions" / "analyses"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "slow.py").write_text(SLOW)
    page.reload()
    page.locator('button[data-run="slow"]').click()
    steps = page.locator("#field-steps input")
    steps.wait_for(timeout=PATIENCE)
    steps.fill("5000")
    page.wait_for_function("() => document.querySelector('#run-command').textContent.includes('steps=5000')")

    # What was written is there after a reload, and after a look at another tab.
    page.reload()
    steps.wait_for(timeout=PATIENCE)
    assert steps.input_value() == "5000"
    page.get_by_role("tab", name="Jobs", exact=True).click()
    page.get_by_role("tab", name="Run", exact=True).click()
    assert steps.input_value() == "5000"

    page.locator("#run-add").click()
    page.get_by_role("link", name="Watch it in Jobs").click()
    panels = page.locator("#jobs-curves figure")
    panels.nth(1).wait_for(timeout=PATIENCE)
    assert panels.count() == 2  # loss, of training and validation; and rate
    said = panels.first.locator("canvas").get_attribute("aria-label")
    # The curve goes on in the same drawing: nothing is mounted anew.
    panels.first.evaluate("node => { node.dataset.same = 'yes'; }")
    page.wait_for_function(
        "said => document.querySelector('#jobs-curves canvas').getAttribute('aria-label') !== said",
        arg=said,
        timeout=PATIENCE,
    )
    assert panels.first.get_attribute("data-same") == "yes"
    page.screenshot(path=shots / "jobs-running.png")

    page.locator("#job-cancel").click()
    page.locator("#job-head .au-is-cancelled").wait_for(timeout=PATIENCE)
    page.locator("#job-resume").click()
    page.locator("#job-head .au-is-running").wait_for(timeout=PATIENCE)

    # Board tells the same, and can cancel it too.
    id = page.locator('#jobs-table tr[aria-selected="true"]').get_attribute("data-id")
    page.goto(f"/board/jobs?job={id}")
    page.get_by_role("button", name="Cancel").click(timeout=PATIENCE)
    page.get_by_role("button", name="Resume").wait_for(timeout=PATIENCE)
    page.screenshot(path=shots / "board-jobs.png")

    # Its settings fill the form again.
    page.get_by_role("link", name="Clone").click()
    steps.wait_for(timeout=PATIENCE)
    assert steps.input_value() == "5000"
    assert id in page.locator("#page-run").text_content()

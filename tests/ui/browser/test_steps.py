"""The step explorer: a past step made again, and explained by the viewer."""

import pytest

from .conftest import wait_until
from .test_runs import ask


def test_a_click_on_the_curve_opens_that_step(site):
    page = site.open("#/runs/digits-healthy")
    over = page.locator("section[aria-labelledby=curves] .u-over")
    over.wait_for()
    middle = {"x": over.bounding_box()["width"] / 2, "y": 40}
    over.hover(position=middle)
    marked = page.get_by_label("Step", exact=True)
    wait_until(lambda: 300 < int(marked.input_value()) < 400)  # of 690
    step = marked.input_value()
    over.click(position=middle)
    page.get_by_role("heading", name=f"Step {step}", exact=True).wait_for()
    assert page.evaluate("location.hash") == f"#/runs/digits-healthy/step/{step}"
    page.locator("main .explanation").wait_for(timeout=60_000)


def test_a_step_is_explained_with_the_loss_that_was_recorded(site):
    page = site.open("#/runs/digits-healthy", size=(1600, 1100))
    rows = ask(page, "/api/runs/digits-healthy/history")["rows"]
    row = next(row for row in rows if "batch_loss" in row and row["step"] >= 60)
    page.get_by_label("Step", exact=True).fill(str(row["step"]))
    page.get_by_role("button", name="Explain step").click()
    page.locator("main .explanation").wait_for(timeout=60_000)
    said = page.locator(".page-head [role=status]").inner_text()
    assert float(said.split("loss ")[1].split(",")[0]) == pytest.approx(row["batch_loss"], rel=1e-3)
    site.picture(page, "explorer", docs=True)
    page.get_by_role("button", name="Next").click()
    wait_until(lambda: page.evaluate("location.hash").endswith(f"/step/{row['step'] + 1}"))
    page.locator("main .explanation").wait_for(timeout=60_000)
    page.go_back()
    wait_until(lambda: page.evaluate("location.hash").endswith("/runs/digits-healthy"))


def test_a_row_of_the_batch_can_be_explained_alone(site):
    page = site.open("#/runs/digits-healthy/step/60?row=2")
    page.locator("main .explanation").wait_for(timeout=60_000)
    assert page.get_by_label("Row of the batch").input_value() == "2"
    site.picture(page, "explorer-row")


def test_a_step_that_was_never_made_is_refused_in_words(site):
    page = site.open("#/runs/digits-healthy/step/999999")
    alert = page.get_by_role("alert")
    alert.wait_for(timeout=60_000)
    assert "999" in alert.inner_text()
    site.picture(page, "explorer-refused")
    assert all("Failed to load resource" in complaint for complaint in site.complaints)
    site.complaints.clear()


def test_a_run_from_python_says_how_to_explain_it(site):
    page = site.open("#/runs/digits-sigmoids/step/20")
    alert = page.get_by_role("alert")
    alert.wait_for(timeout=60_000)
    assert "Python" in alert.inner_text()
    site.picture(page, "explorer-from-python")
    assert all("409" in complaint for complaint in site.complaints)
    site.complaints.clear()

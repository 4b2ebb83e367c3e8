"""The list of runs, the curves, what flows inside, the diagnoses, and a run that trains while one looks."""

import signal
import subprocess

from .conftest import COMMAND, ENVIRONMENT, wait_until

RUNS = "#/runs"
BOTH = "#/runs?select=digits-healthy&select=digits-sigmoids"


def drawn(page, selector):
    """How many different colours a canvas shows."""
    return page.evaluate(
        """selector => {
            const canvas = document.querySelector(selector);
            const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            const colours = new Set();
            for (let k = 0; k < pixels.length; k += 4) colours.add(`${pixels[k]} ${pixels[k + 1]} ${pixels[k + 2]}`);
            return colours.size;
        }""",
        selector,
    )


def ask(page, path):
    """What the server answers to the page."""
    return page.evaluate("async path => (await fetch(path)).json()", path)


def test_the_list_has_every_run_with_its_figures(site):
    page = site.open(RUNS)
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="digits-healthy"))
    summary = next(run for run in ask(page, "/api/runs")["runs"] if run["name"] == "digits-healthy")
    assert summary["epochs"] == 30
    assert "finished" in row.inner_text() and "30" in row.inner_text()
    assert f"{summary['best']['value']:.4g}" in row.inner_text()
    site.picture(page, "runs-list")


def test_the_filter_and_the_order(site):
    page = site.open(RUNS)
    names = page.locator("table.runs th a")
    names.first.wait_for()
    page.get_by_label("Filter").fill("sigm")
    assert names.all_inner_texts() == ["digits-sigmoids"]
    page.get_by_label("Filter").fill("no such run")
    assert page.get_by_text("No run fits the filter.").is_visible()
    page.get_by_label("Filter").fill("")
    page.get_by_role("button", name="Best").click()
    falling = names.all_inner_texts()
    page.get_by_role("button", name="Best").click()
    rising = names.all_inner_texts()
    assert len(rising) >= 2 and rising == falling[::-1]
    runs = sorted(ask(page, "/api/runs")["runs"], key=lambda run: run["best"]["value"])
    assert rising == [run["name"] for run in runs]
    site.picture(page, "runs-sorted")


def test_chosen_runs_are_overlaid(site):
    page = site.open(RUNS + "?select=digits-healthy")
    chart = page.locator(".plot")
    wait_until(lambda: "digits-healthy: training loss: from" in chart.get_attribute("aria-label"))
    assert "digits-sigmoids" not in chart.get_attribute("aria-label")
    page.get_by_label("Compare digits-sigmoids").check()
    wait_until(lambda: "digits-sigmoids: training loss: from" in chart.get_attribute("aria-label"))
    assert page.get_by_role("heading", name="2 runs compared").is_visible()
    page.get_by_role("checkbox", name="validation accuracy").check()
    assert "digits-healthy: validation accuracy" in chart.get_attribute("aria-label")
    assert page.locator(".chart-legend li").count() == 6
    page.get_by_role("checkbox", name="validation accuracy").uncheck()
    site.picture(page, "runs", docs=True)


def test_axis_scale_and_smoothing(site):
    page = site.open(BOTH)
    chart = page.locator(".plot")
    chart.wait_for()
    page.get_by_role("checkbox", name="loss of each batch").check()
    before = chart.screenshot()
    page.get_by_role("radio", name="Time").click()
    assert "against seconds of training" in chart.get_attribute("aria-label")
    page.get_by_role("radio", name="Epoch").click()
    page.get_by_label("Log scale").check()
    page.get_by_label("Smoothing").fill("0.9")
    assert "against epoch" in chart.get_attribute("aria-label")
    assert chart.screenshot() != before
    site.picture(page, "runs-smoothed")


def test_the_table_beside_a_chart_has_its_numbers(site):
    page = site.open("#/runs/digits-healthy")
    page.get_by_role("heading", name="Loss", exact=True).wait_for()
    card = page.locator("section[aria-labelledby=curves]")
    card.get_by_text("As a table").click()
    rows = [row for row in ask(page, "/api/runs/digits-healthy/history")["rows"] if "validation_loss" in row]
    last = card.locator("tbody tr").last.inner_text()
    assert f"{rows[-1]['validation_loss']:.4g}" in last
    site.picture(page, "run-table")


def test_curves_grow_while_a_run_trains(site, workplace):
    command = [
        *COMMAND,
        "train",
        "digits",
        "--epochs",
        "5000",
        "--patience",
        "5000",
        "--name",
        "digits-live",
        "--quiet",
    ]
    training = subprocess.Popen(
        command, cwd=workplace, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        page = site.open(RUNS)
        page.get_by_role("link", name="digits-live").wait_for()  # it appears by itself
        page.get_by_role("link", name="digits-live").click()
        steps = page.locator(".figures div", has_text="steps").locator("dd")
        page.locator(".page-head .badge", has_text="running").wait_for()

        def done():
            return int("".join(filter(str.isdigit, steps.inner_text())))

        before = page.locator(".plot").first.get_attribute("aria-label")
        first = done()
        wait_until(lambda: done() > first + 100)
        assert page.locator(".plot").first.get_attribute("aria-label") != before
        site.picture(page, "run-live")
        training.send_signal(signal.SIGINT)
        page.locator(".page-head .badge", has_text="interrupted").or_(
            page.locator(".page-head .badge", has_text="stopped")
        ).wait_for()
        assert training.wait(30) is not None
        final = ask(page, "/api/runs/digits-live/history")["rows"][-1]["step"]
        wait_until(lambda: done() == final)
    finally:
        training.kill()
        training.wait()


def test_what_flows_inside_is_drawn(site):
    page = site.open("#/runs/digits-sigmoids", size=(1600, 1000))
    flow = page.locator("section[aria-labelledby=flow]")
    flow.wait_for()
    snapshots = ask(page, "/api/runs/digits-sigmoids/snapshots")["snapshots"]
    layers = [f"{layer['path']} {layer['layer']}" for layer in snapshots[-1]["layers"]]
    assert flow.locator(".heat-name").all_inner_texts() == layers
    assert drawn(page, "section[aria-labelledby=flow] canvas") > 5
    assert drawn(page, "section[aria-labelledby=ratios] canvas") > 5
    flow.get_by_role("button", name="2 Linear").click()
    histograms = page.locator("section[aria-labelledby=histograms]")
    assert histograms.get_by_role("combobox", name="Layer").input_value() == "2"
    for kind in ("Their gradients", "Weights", "Weight gradients", "Updates"):
        histograms.get_by_role("radio", name=kind, exact=True).click()
        assert drawn(page, "section[aria-labelledby=histograms] canvas") > 5
        assert histograms.get_by_role("img", name="Histogram of step").is_visible()
    site.picture(page, "run-inside", whole=True)


def test_the_marked_step_is_the_same_in_every_chart(site):
    page = site.open("#/runs/digits-sigmoids")
    page.locator("section[aria-labelledby=flow]").wait_for()
    snapshots = ask(page, "/api/runs/digits-sigmoids/snapshots")["snapshots"]
    chosen = snapshots[len(snapshots) // 2]
    page.get_by_label("Step", exact=True).fill(str(chosen["step"]))
    page.get_by_label("Step", exact=True).press("Tab")
    assert page.get_by_role("button", name="Explain step").inner_text().endswith(str(chosen["step"]))
    page.get_by_role("heading", name=f"Step {chosen['step']}", exact=True).wait_for()
    page.locator("section[aria-labelledby=flow]").get_by_text("As a table").click()
    assert page.get_by_role("checkbox", name="Newest").is_checked() is False


def test_diagnoses_name_cause_evidence_and_remedy(site):
    page = site.open("#/runs/digits-sigmoids", size=(1600, 1330))
    found = ask(page, "/api/runs/digits-sigmoids/diagnoses")["diagnoses"]
    assert "vanishing-gradients" in [diagnosis["kind"] for diagnosis in found]
    diagnosis = next(diagnosis for diagnosis in found if diagnosis["kind"] == "vanishing-gradients")
    item = page.locator(".diagnoses > li", has_text=diagnosis["message"]).first
    item.wait_for()
    text = item.inner_text()
    assert diagnosis["severity"] in text and all(line in text for line in diagnosis["evidence"])
    assert item.locator(".badge-sign").inner_text() in "✕▲ℹ"
    item.get_by_role("button", name="step").click()
    assert page.get_by_label("Step", exact=True).input_value() == str(diagnosis["step"])
    page.get_by_role("checkbox", name="Newest").check()
    site.picture(page, "run", docs=True)


def test_a_healthy_run_has_no_diagnosis(site):
    page = site.open("#/runs/digits-healthy")
    page.get_by_text("Nothing wrong was found.").wait_for()
    site.picture(page, "run-healthy")


def test_a_run_that_is_not_there_is_said_so(site):
    page = site.open("#/runs/no-such-run")
    assert "no-such-run" in page.get_by_role("alert").inner_text()
    site.picture(page, "run-missing")
    assert all("404" in complaint for complaint in site.complaints)  # the browser tells of it, too
    site.complaints.clear()

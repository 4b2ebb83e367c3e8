"""The playground: forwards, backwards, with weights, gradients and updates."""

import re

import pytest

from .conftest import wait_until

PLAYGROUND = "#/playground"


def begin(site, **options):
    page = site.open(PLAYGROUND, **options)
    page.locator("button.neuron:not(.feature)").first.wait_for()
    return page


def step(page):
    return int(page.locator(".step-field b").inner_text().replace("\u202f", ""))


def losses(page):
    return page.locator(".figures dd").all_inner_texts()


def make_steps(page, number):
    """Press `Step` so many times, and wait until they are made."""
    target = step(page) + number
    for _ in range(number):
        page.get_by_role("button", name="One step on").click()
    wait_until(lambda: step(page) == target)


def number(text):
    """A number as the page writes it."""
    match = re.fullmatch(r"([+−]?)([\d.]*)·?(?:10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+))?", text.strip())
    assert match, text
    superscripts = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    power = float(f"1e{match[3].translate(superscripts)}") if match[3] else 1.0
    return (-1 if match[1] == "−" else 1) * float(match[2] or 1) * power


def test_a_step_back_is_the_same_step(site):
    page = begin(site)
    make_steps(page, 3)
    third = losses(page)
    maps = page.locator("canvas.boundary").screenshot()
    make_steps(page, 2)
    assert losses(page) != third
    page.get_by_role("button", name="One step back").click()
    page.get_by_role("button", name="One step back").click()
    wait_until(lambda: step(page) == 3)
    assert losses(page) == third
    assert page.locator("canvas.boundary").screenshot() == maps


def test_the_slider_goes_to_any_step(site):
    page = begin(site)
    make_steps(page, 4)
    slider = page.get_by_label("Step, of 4 made")
    slider.fill("1")
    wait_until(lambda: step(page) == 1)
    first = losses(page)
    slider.fill("4")
    wait_until(lambda: step(page) == 4)
    assert losses(page) != first
    page.get_by_role("button", name="Back to the beginning").click()
    wait_until(lambda: step(page) == 0)


def test_it_plays_and_learns(site):
    page = begin(site)
    page.get_by_label("Optimiser").select_option("adam")
    page.get_by_label("Learning rate").select_option("0.03")
    page.wait_for_timeout(500)
    before = [number(text) for text in losses(page)]
    page.get_by_role("radio", name="10", exact=True).click()
    page.get_by_role("button", name="Play").click()
    wait_until(lambda: step(page) >= 300, 60)
    page.get_by_role("button", name="Pause").click()
    page.wait_for_timeout(500)
    there = step(page)
    page.wait_for_timeout(500)
    assert step(page) == there
    assert number(losses(page)[0]) < 0.3 * before[0]
    page.get_by_role("button", name="Layer 1, unit 2").click()
    page.mouse.move(5, 5)
    site.picture(page, "playground", docs=True, whole=True)


def test_the_numbers_of_a_unit_add_up(site):
    page = begin(site)
    make_steps(page, 2)
    page.get_by_role("button", name="Layer 1, unit 1").click()
    cells = page.locator(".neuron-panel tbody tr")
    before = [number(text) for text in cells.locator("td:nth-of-type(1)").all_inner_texts()]
    make_steps(page, 1)
    rows = [[number(text) for text in row.locator("td").all_inner_texts()] for row in cells.all()]
    assert len(rows) == 3  # x, y, bias
    for was, (weight, gradient, update) in zip(before, rows, strict=True):
        assert update == pytest.approx(-0.1 * gradient, rel=0.02)  # SGD with learning rate 0.1
        assert weight - was == pytest.approx(update, abs=0.002)  # three digits are shown


def test_connections_show_weights_gradients_or_updates(site):
    page = begin(site)
    make_steps(page, 1)
    said = {}
    for quantity in ("weights", "gradients", "updates"):
        page.get_by_role("radio", name=quantity).click()
        said[quantity] = page.locator(".net-view > .hint").inner_text()
        assert f"lines: {quantity}" in said[quantity]
    largest = {quantity: number(re.search(r"at most (\S+)\. ", text)[1]) for quantity, text in said.items()}
    assert largest["updates"] == pytest.approx(0.1 * largest["gradients"], rel=0.02)
    site.picture(page, "playground-updates")


def test_the_network_can_be_changed(site):
    page = begin(site)
    assert page.get_by_role("button", name="Layer 1, unit").count() == 4
    page.get_by_role("button", name="One unit more in layer 1").click()
    page.get_by_role("button", name="Layer 1, unit 5").wait_for()
    page.get_by_role("button", name="One layer more").click()
    page.get_by_role("button", name="Layer 3, unit 3").wait_for()
    page.get_by_role("button", name="Input xy").click()
    page.get_by_role("button", name="Layer 1, unit 1").click()
    page.locator(".neuron-panel th", has_text="xy").wait_for()
    page.get_by_label("Data").select_option("spiral")
    page.get_by_label("Activation").select_option("relu")
    page.get_by_label("Optimiser").select_option("adam")
    page.get_by_label("Learning rate").select_option("0.03")
    page.wait_for_timeout(500)
    make_steps(page, 2)
    site.picture(page, "playground-changed")


def test_a_network_without_hidden_layers(site):
    page = begin(site)
    page.get_by_role("button", name="One layer less").click()
    page.get_by_role("button", name="One layer less").click()
    wait_until(lambda: page.locator("button.neuron:not(.feature)").count() == 1)
    make_steps(page, 1)


def test_own_columns(site):
    page = begin(site)
    page.get_by_label("Data").select_option("own")
    text = page.get_by_label("Paste lines of a table")
    text.fill("width,height,kind\n1,2,a\n2,x,b\n" + "3,4,a\n" * 10)
    page.get_by_role("button", name="Use these points").click()
    assert '"x" in row 2 of height' in page.get_by_role("alert").inner_text()
    lines = [f"{k},{(k * 7) % 20},{'low' if (k * 7) % 20 < 10 else 'high'}" for k in range(20)]
    text.fill("width,height,kind\n" + "\n".join(lines))
    page.get_by_role("button", name="Use these points").click()
    page.get_by_role("img", name="with 14 training points").wait_for()
    make_steps(page, 3)
    site.picture(page, "playground-own")


def test_a_step_is_explained(site):
    page = begin(site)
    make_steps(page, 3)
    explain = page.get_by_role("button", name="Explain this step")
    explain.click()
    dialog = page.get_by_role("dialog")
    dialog.locator(".explanation").wait_for()
    site.picture(page, "playground-explained")
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    assert explain.evaluate("button => document.activeElement === button")

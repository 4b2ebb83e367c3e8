"""The self-contained page of an explanation, opened from its file in Chromium without a window."""

import math
import re

import pytest
from tests.explain.two_two_two import by_library, explanation

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.explanation import explain
from chainrule.explanation.page import write_page

from .conftest import DESKTOP, PHONE, PROJECTOR, ROOT, save_for_documents, wait_until

SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")


@pytest.fixture
def opened(chromium, tmp_path, request):
    """Opens the page of an explanation; nothing but the file may be asked for, nothing may be complained of."""
    contexts, asked, complaints = [], set(), []

    def open_page(explained, size=DESKTOP, **options):
        path = write_page(explained, tmp_path / "step.html")
        context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda sent: asked.add(sent.url.split("#")[0]))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: said.type in ("error", "warning") and complaints.append(said.text))
        page.goto(path.as_uri())
        page.wait_for_selector(".explanation")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert asked == {(tmp_path / "step.html").as_uri()}


@pytest.fixture
def picture(request):
    """Keeps a picture; it becomes one of the documents' when these are to be refreshed."""
    folder = request.config.cache.mkdir("screenshots")

    def take(page, name, docs=False, whole=False):
        page.wait_for_timeout(250)
        page.screenshot(path=folder / f"{name}.png", full_page=whole)
        if docs and request.config.getoption("--refresh-images", default=False):
            save_for_documents(folder / f"{name}.png", f"{name}.png")

    return take


def large():
    """A step of a network whose first layer has 100 inputs and 64 units: drawn by heat maps."""
    model = nn.Sequential(nn.Linear(100, 64), nn.ReLU(), nn.Linear(64, 10)).seed(0)
    x = cr.random.Generator(1).normal((8, 100))
    return explain(model, x, cr.arange(8), loss=losses.cross_entropy, optimizer=optim.Adam(lr=0.01)).to_dict()


def deep(layers=120):
    """A step of a network with very many layers."""
    parts = [part for _ in range(layers) for part in (nn.Linear(4, 4), nn.Tanh())]
    model = nn.Sequential(*parts).seed(0)
    x = cr.random.Generator(1).normal((2, 4))
    return explain(model, x, x, loss=losses.mse, optimizer=optim.SGD(lr=0.1)).to_dict()


def steps(page):
    """(present step, last step)"""
    slider = page.get_by_role("slider", name="Step")
    return int(slider.input_value()), int(slider.get_attribute("max"))


def equations(page, panel=".line-panel"):
    """The lines of the panel as (label, symbols, numbers)."""
    rows = page.locator(f"{panel} .equation").all()
    parts = ("label", "symbols", "numbers")
    return [tuple(row.locator(f".{part}").all_inner_texts() for part in parts) for row in rows]


def worth(text):
    """What an expression on the page comes to."""
    text = text.replace("−", "-").replace("\u202f", "").strip().removesuffix("=")
    text = re.sub(r"10([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)", lambda m: f"1e{m[1].translate(SUPERSCRIPTS)}", text)
    text = text.replace("²", "**2").replace("·", "*").replace("σ", "sigmoid")
    assert re.fullmatch(r"[\d.e+\-*/() ]|(sigmoid|[\d.e+\-*/() ])+", text), text
    return eval(text, {"sigmoid": lambda z: 1 / (1 + math.exp(-z))})


def press(page, key, times=1):
    for _ in range(times):
        page.keyboard.press(key)


def go_to(page, title):
    """Walk on until the panel's title says this."""
    for _ in range(200):
        if title in page.locator(".line-panel h2").inner_text().replace("\n", " "):
            return
        press(page, "ArrowRight")
    raise AssertionError(f"no step {title!r}")


def test_the_whole_step_by_keyboard(opened, picture):
    page = opened(explanation())
    at, last = steps(page)
    assert at == 0 and last == 13 + 16 + 4 + 1  # nodes forward, those with a gradient backward, parameters
    phases = []
    for number in range(1, last + 1):
        press(page, "ArrowRight")
        assert steps(page)[0] == number
        phases.append(page.locator(".phases [aria-pressed=true]").inner_text())
    order = ["Forward", "Loss", "Backward", "Update"]
    assert sorted(phases, key=order.index) == phases and set(phases) == set(order)
    press(page, "ArrowRight")
    assert steps(page)[0] == last
    press(page, "ArrowLeft")
    assert steps(page)[0] == last - 1
    press(page, "Home")
    assert steps(page)[0] == 0
    press(page, "End")
    assert steps(page)[0] == last
    picture(page, "page-update")


@pytest.mark.parametrize("of", [explanation, by_library])
def test_every_equation_of_the_step_holds(opened, of):
    page = opened(of())
    checked = 0
    for _ in range(steps(page)[1]):
        press(page, "ArrowRight")
        for _, _, (*numbers,) in equations(page):
            parts = numbers[0].strip().lstrip("=").split(" = ") if numbers else []
            if len(parts) < 2 or any("→" in part for part in parts):
                continue
            values = [worth(part) for part in parts]
            assert values == pytest.approx([values[-1]] * len(values), rel=2e-3, abs=2e-4), numbers
            checked += 1
    assert checked > 40


@pytest.mark.parametrize("of", [explanation, by_library])
def test_the_textbooks_lines_are_spelled_in_symbols_and_numbers(opened, picture, of):
    page = opened(of(), size=(1440, 1000))
    go_to(page, "Forward matmul")
    (line, *_) = equations(page)
    assert line[1] == ["z₁ = w₁₁·x₁ + w₁₂·x₂ + b₁"]
    assert line[2] == ["= 0.15·0.05 + 0.2·0.1 + 0.35 = 0.3775"]
    go_to(page, "Backward through sigmoid")
    above, error, *_ = equations(page)
    assert above[1:] == (["∂L/∂y₁ = y₁ − t₁"], ["= 0.7514 − 0.01 = 0.7414"])
    assert error[1] == ["δ₁ = ∂L/∂y₁ · y₁·(1 − y₁)"]
    assert error[2] == ["= 0.7414 · 0.7514·(1 − 0.7514) = 0.7414 · 0.1868 = 0.1385"]
    press(page, "PageDown")
    go_to(page, "Backward through sigmoid")
    above, *_ = equations(page)
    assert above[1:] == (["∂L/∂h₁ = w₁₁·δ₁ + w₂₁·δ₂"], ["= 0.4·0.1385 + 0.5·(−0.0381) = 0.03635"])
    picture(page, "page-2-2-2", docs=of is by_library)
    go_to(page, f"Update Δ {'output' if of is by_library else 2}.weight")
    assert ("Δw = −lr · g", "= (−0.5) · 0.08217 = −0.04108") in [(s, n) for _, (s,), (n,) in equations(page)]


def test_a_unit_and_a_connection_show_their_numbers(opened, picture):
    page = opened(explanation())
    page.get_by_role("button", name="2 → 3, unit 2 (y₂)").click()
    facts = page.locator(".unit-panel .facts").all_inner_texts()
    assert [text.split("\n")[1] for text in re.split(r"\n(?=slope|output|error)", facts[0])] == [
        "1.2249", "0.77293", "0.17551", "−0.038098",
    ]  # fmt: skip
    page.get_by_label("from input").select_option(label="2")
    assert page.locator(".unit-panel .facts").nth(1).inner_text().split("\n")[1::2] == ["0.55", "−0.02274", "0.01137"]
    # The pointer on a connection lights up what feeds it, all the way from the inputs, and its way on to the loss.
    page.locator(".weights").first.locator(".weight").last.hover(force=True)
    lit = page.locator(".weight.lit")
    assert lit.count() == 1 + 2
    picture(page, "page-hover")
    page.keyboard.press("ArrowDown")
    assert page.locator(".unit.picked").count() >= 1


def test_units_and_connections_by_keyboard(opened):
    page = opened(explanation())
    go_to(page, "Forward matmul")
    picks = page.locator(".picks select")
    assert [picks.nth(k).input_value() for k in (0, 1)] == ["0", "0"]
    press(page, "ArrowDown")
    press(page, "Shift+ArrowDown")
    assert [picks.nth(k).input_value() for k in (0, 1)] == ["1", "1"]
    assert equations(page)[0][2] == ["= 0.25·0.05 + 0.3·0.1 + 0.35 = 0.3925"]
    press(page, "PageDown")
    assert page.locator(".column-head.present strong").inner_text() == "2 → 3"


def test_the_slider_and_the_buttons_walk_too(opened):
    page = opened(explanation())
    page.get_by_role("button", name="One operation on").click()
    assert steps(page)[0] == 1
    page.get_by_role("button", name="Backward", exact=True).click()
    assert "Backward" in page.locator(".line-panel h2").inner_text()
    slider = page.get_by_role("slider", name="Step")
    slider.focus()
    before = steps(page)[0]
    press(page, "ArrowRight")
    assert steps(page)[0] == before + 1
    page.get_by_role("button", name="Play").click()
    wait_until(lambda: steps(page)[0] > before + 1)
    page.get_by_role("button", name="Pause").click()


@pytest.mark.parametrize("size", [PHONE, DESKTOP, PROJECTOR], ids=["phone", "desktop", "projector"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_is_accessible(opened, accessible, picture, size, scheme):
    page = opened(explanation(), size=size, color_scheme=scheme)
    name = f"page-{size[0]}-{scheme}"
    for where in ("overview", "forward", "backward", "update"):
        if where != "overview":
            page.locator(f".phases .{where}").click()
            press(page, "ArrowRight", 3 if where == "forward" else 0)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        accessible(page)
        shown = (size, scheme, where) == (PHONE, "dark", "forward")
        picture(page, "page-phone" if shown else f"{name}-{where}", docs=shown, whole=where == "overview")


def test_the_theme_can_be_switched(opened):
    page = opened(explanation(), color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Dark").click()
    dark = page.evaluate(ground)
    assert light == "rgb(255, 255, 255)" and dark != light
    page.get_by_role("button", name="Light").click()
    assert page.evaluate(ground) == light


def test_nothing_moves_for_those_who_want_it_still(opened):
    page = opened(explanation(), reduced_motion="reduce")
    duration = page.evaluate("getComputedStyle(document.querySelector('.weight .ink')).transitionDuration")
    assert float(duration.removesuffix("s")) < 0.001


def test_large_layers_are_heat_maps_that_open_and_can_be_read(opened, accessible, picture):
    explained = large()
    page = opened(explained, size=(1440, 1000))
    picture(page, "page-large", docs=True)
    accessible(page)
    page.get_by_role("button", name=re.compile(r"^0 → 1: output")).click()
    dialog = page.get_by_role("dialog")
    accessible(page)
    dialog.locator("figure").first.focus()
    press(page, "ArrowRight", 3)
    # units 0, 1, 2, 3 of row 0, after the activation: the value of the node that feeds the second product
    product = [n for n in explained["nodes"] if n["op"] == "matmul"][1]
    wanted = explained["nodes"][product["inputs"][0]]["value"]["data"][3]
    said = dialog.get_by_role("status").inner_text()
    assert "[0, 3]" in said
    assert worth(said.split("= ")[1]) == pytest.approx(wanted, rel=1e-4, abs=1e-9)
    width = dialog.locator("canvas").first.bounding_box()["width"]
    press(page, "+")
    assert dialog.locator("canvas").first.bounding_box()["width"] > width
    picture(page, "page-zoom")
    press(page, "Escape")
    dialog.wait_for(state="detached")
    assert steps(page)[0] == 0  # the arrow keys belonged to the dialog


def test_another_row_of_the_batch(opened):
    explained = large()
    page = opened(explained)
    page.get_by_role("spinbutton", name="Row of").fill("5")
    press(page, "Tab")
    press(page, "End")
    press(page, "Home")
    go_to(page, "Forward add")
    index = page.locator(".element input").first
    assert index.input_value() == "5"


def test_very_deep_networks_stay_light(opened, picture):
    explained = deep()
    page = opened(explained)
    page.get_by_text("All ", exact=False).first.click()
    assert page.locator(".step-row").count() < 60
    assert page.evaluate("document.querySelectorAll('*').length") < 2500
    took = page.evaluate(
        """async () => {
            const frame = () => new Promise(requestAnimationFrame);
            const start = performance.now();
            for (let k = 0; k < 20; k += 1) {
                document.dispatchEvent(new KeyboardEvent("keydown", { key: "PageDown", bubbles: true }));
                await frame();
            }
            return (performance.now() - start) / 20;
        }"""
    )
    assert took < 1000  # milliseconds a layer, on any machine; tens on an idle one
    press(page, "End")
    box = page.locator(".column-head.present").bounding_box()
    assert box is not None
    picture(page, "page-deep")


def test_a_page_without_an_explanation_says_so(chromium, tmp_path):
    template = ROOT / "src" / "chainrule" / "explanation" / "page.html"
    page = chromium.new_page()
    page.goto(template.as_uri())
    assert "holds no explanation" in page.locator("#page").inner_text()
    page.close()

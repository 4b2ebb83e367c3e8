"""For every reader: keyboard alone, phone, projector, light and dark, little movement, and axe-core's rules."""

import pytest

from .conftest import DESKTOP, PHONE, PROJECTOR, wait_until

VIEWS = {
    "runs": "#/runs?select=digits-healthy&select=digits-sigmoids",
    "run": "#/runs/digits-sigmoids",
    "step": "#/runs/digits-healthy/step/60",
    "playground": "#/playground",
    "nothing": "#/no/such/view",
}
SHOWN = {
    "runs": "table.runs tbody a",
    "run": "section[aria-labelledby=flow] canvas",
    "step": "main .explanation",
    "playground": "canvas.boundary",
    "nothing": "main h1",
}


def visit(site, view, size=DESKTOP, **options):
    page = site.open(VIEWS[view], size=size, **options)
    page.wait_for_selector(SHOWN[view], timeout=60_000)
    page.wait_for_timeout(300)
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing(site, accessible, view, scheme):
    page = visit(site, view, color_scheme=scheme)
    if view == "run":
        page.get_by_text("As a table").first.click()
    accessible(page)
    site.picture(page, f"{view}-{scheme}", whole=True)


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_is_cut_off_on_a_phone(site, accessible, view):
    page = visit(site, view, size=PHONE, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    accessible(page)
    site.picture(page, f"{view}-phone", whole=True)


@pytest.mark.parametrize("view", VIEWS)
def test_a_projector_is_used_to_its_edges(site, view):
    page = visit(site, view, size=PROJECTOR)
    assert page.evaluate("document.documentElement.scrollWidth") <= PROJECTOR[0]
    assert page.evaluate("document.querySelector('.page').clientWidth") > 1800
    assert page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)") >= 18
    site.picture(page, f"{view}-projector")


def lightness(page):
    """Of the ground, 0 to 255."""
    return page.evaluate("Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")


def test_light_and_dark_follow_the_system_until_somebody_chooses(site):
    page = visit(site, "runs", color_scheme="dark")
    assert lightness(page) < 60
    page.emulate_media(color_scheme="light")
    assert lightness(page) > 200
    page.get_by_role("button", name="Colours: system").click()
    page.get_by_role("button", name="Colours: light").click()
    assert lightness(page) < 60
    page.reload()
    page.wait_for_selector(SHOWN["runs"])
    assert lightness(page) < 60
    assert page.get_by_role("button", name="Colours: dark").is_visible()


def test_little_movement_is_respected(site):
    page = visit(site, "runs", reduced_motion="reduce")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<span class=spinner></span>')")
    duration = page.evaluate("getComputedStyle(document.querySelector('.spinner')).animationDuration")
    assert duration in ("1e-06s", "0.000001s")


def focused(page):
    """What the keyboard is at, by its name."""
    return page.evaluate(
        """() => {
            const element = document.activeElement;
            return element.ariaLabel || element.labels?.[0]?.innerText || element.innerText || element.tagName;
        }"""
    )


def tab_to(page, name, most=80):
    """Press the tab key until something of this name has the focus."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if name in focused(page):
            return
    raise AssertionError(f"the tab key does not lead to {name}")


def test_runs_by_keyboard_alone(site):
    page = visit(site, "runs")
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "MAIN"
    tab_to(page, "Step")
    page.keyboard.press("ArrowRight")
    assert focused(page) == "Epoch"
    assert page.get_by_role("radio", name="Epoch").get_attribute("aria-checked") == "true"
    tab_to(page, "Compare ")
    first = focused(page)
    page.keyboard.press("ArrowDown")
    assert focused(page) != first and "Compare " in focused(page)
    page.keyboard.press("Space")
    name = focused(page).removeprefix("Compare ")
    assert not page.get_by_label(f"Compare {name}").is_checked()
    tab_to(page, name)
    page.keyboard.press("Enter")
    wait_until(lambda: page.evaluate("location.hash").endswith(f"#/runs/{name}"))
    page.locator("h1", has_text=name).wait_for()


def test_a_step_by_keyboard_alone(site):
    page = site.open("#/runs/digits-healthy")
    page.wait_for_selector(".step-bar")
    tab_to(page, "Step, of")
    page.keyboard.press("Home")
    for _ in range(9):
        page.keyboard.press("ArrowRight")
    assert page.get_by_role("button", name="Explain step 10").is_visible()
    tab_to(page, "Explain step 10")
    page.keyboard.press("Enter")
    wait_until(lambda: page.evaluate("location.hash").endswith("/step/10"))
    page.wait_for_selector(SHOWN["step"], timeout=60_000)


def test_the_playground_by_keyboard_alone(site):
    page = visit(site, "playground")
    tab_to(page, "One step on")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    step = page.locator(".step-field b")
    wait_until(lambda: step.inner_text() == "2")
    tab_to(page, "Step, of 2 made")
    page.keyboard.press("ArrowLeft")
    wait_until(lambda: step.inner_text() == "1")
    tab_to(page, "One unit more in layer 2")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Layer 2, unit 4").wait_for()
    tab_to(page, "Layer 2, unit 4")
    assert page.get_by_role("heading", name="Unit 2.4").is_visible()


@pytest.mark.parametrize("view", ["runs", "run", "playground"])
def test_the_focus_is_always_seen_and_never_trapped(site, view):
    page = visit(site, view)
    page.evaluate("document.activeElement.blur()")
    seen = 0
    for _ in range(250):
        page.keyboard.press("Tab")
        state = page.evaluate(
            """() => {
                const element = document.activeElement;
                if (element === document.body) return null;
                const style = getComputedStyle(element);
                return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
            }"""
        )
        if state is None:  # once around, and out of the page
            break
        assert state, f"the focus at {focused(page)!r} is not seen"
        seen += 1
    assert 10 < seen < 250

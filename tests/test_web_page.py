"""The page in a real browser, over the demo's library: `pytest -m browser`, which needs Chromium and Playwright.

No console error, no failed request, and nothing that leaves this machine, in any of them.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.conftest import wait_until

pytestmark = pytest.mark.browser

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("there is no Chromium", allow_module_level=True)

PROMPT = "green bookshelf"
SCREENSHOTS = os.environ.get("STEERSEARCH_SCREENSHOTS")  # a folder to keep them in


@dataclass
class Served:
    """The server as a process of its own, which can be killed and started again at the same port."""

    library: Path
    environment: dict[str, str]
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        command = [sys.executable, "-m", "steersearch", "serve", "--library", str(self.library), "--port"]
        self.process = subprocess.Popen(
            [*command, str(self.port)], env=self.environment, stdout=subprocess.DEVNULL
        )
        wait_until(self.is_up)

    def is_up(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The demo's photos, indexed with mini without a prompt and under one."""
    folder = tmp_path_factory.mktemp("page")
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    environment |= {f"XDG_{kind}_HOME": str(folder / kind) for kind in ("DATA", "STATE", "CACHE", "CONFIG")}
    for command in (
        ["demo", str(folder / "demo")],
        ["index", str(folder / "demo" / "photos"), "--prompt", PROMPT, "--library", str(folder / "library")],
    ):
        subprocess.run(
            [sys.executable, "-m", "steersearch", *command], env=environment, check=True, capture_output=True
        )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Served(folder / "library", environment, port)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        made = started.chromium.launch(executable_path=CHROMIUM)
        yield made
        made.close()


@dataclass
class Watched:
    """A page and everything that went wrong in it."""

    page: Any
    errors: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)  # parts of errors that a test provokes

    def unexpected(self) -> list[str]:
        return [error for error in self.errors if not any(part in error for part in self.expected)]


@pytest.fixture
def watched(browser: Any, served: Served) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.set_default_timeout(120_000)
    made = Watched(page)
    page.on("console", lambda m: made.errors.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: made.errors.append(str(error)))
    page.on(
        "request", lambda request: made.errors.append(f"left: {request.url}") if leaves(request.url) else None
    )
    page.goto(served.address)
    page.wait_for_selector("#hits li")
    yield made
    context.close()
    assert made.unexpected() == []


def leaves(url: str) -> bool:
    """Whether a request goes to another machine."""
    split = urlsplit(url)
    return split.scheme in ("http", "https", "ws", "wss") and split.hostname != "127.0.0.1"


def until(page: Any, condition: str) -> None:
    """Wait for an expression to be true; Playwright's own way needs eval, which the page's policy forbids."""
    for _ in range(1200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    pytest.fail(f"it did not come about in two minutes: {condition}; the page says: {status(page)}")


def shot(page: Any, name: str) -> None:
    if SCREENSHOTS:
        page.wait_for_timeout(700)
        page.screenshot(path=str(Path(SCREENSHOTS) / f"{name}.png"))


def status(page: Any) -> str:
    return str(page.inner_text("#status"))


def wait_for_status(page: Any, pattern: str) -> str:
    until(page, f"/{pattern}/i.test(document.getElementById('status').innerText)")
    return status(page)


def hits(page: Any) -> list[str]:
    return [name.strip() for name in page.locator("#hits .name").all_inner_texts()]


def choose_first(page: Any) -> None:
    """Search with the first photo shown."""
    page.click("#hits li:first-child > button")
    page.click("#viewer-like")
    wait_for_status(page, "^exact")


def ask(page: Any, focus: str) -> None:
    page.fill("#focus", focus)
    page.press("#focus", "Enter")


def test_results_follow_the_focus_and_back_goes_back(watched: Watched) -> None:
    page = watched.page
    assert "newest first" in status(page)
    until(page, "/^\\d+ photos, /.test(document.getElementById('library-note').innerText)")
    shot(page, "page-browse")
    choose_first(page)
    without = hits(page)
    assert page.locator("#hits .heat:visible").count() == 0
    ask(page, PROMPT)
    until(page, "document.querySelectorAll('#hits .heat:not([hidden])').length > 3")
    said = wait_for_status(page, "^exact")
    assert "exact" in said
    assert hits(page) != without
    shot(page, "page-focus")
    page.go_back()
    until(page, "document.querySelectorAll('#focuses li').length === 0")
    wait_for_status(page, "^exact")
    assert hits(page) == without


def test_a_link_shows_the_same_search(watched: Watched, served: Served) -> None:
    page = watched.page
    choose_first(page)
    ask(page, PROMPT)
    until(page, "document.querySelectorAll('#hits .heat:not([hidden])').length > 3")
    wait_for_status(page, "^exact")
    first, address = hits(page), page.url
    page.goto("about:blank")
    page.goto(address)
    wait_for_status(page, "^exact")
    assert hits(page) == first
    assert page.inner_text("#focuses .text") == PROMPT


def test_an_upload_is_searched_with_and_what_is_no_image_is_refused(
    watched: Watched, served: Served, tmp_path: Path
) -> None:
    page = watched.page
    photo = sorted((served.library.parent / "demo" / "photos").glob("*.jpg"))[0]
    page.set_input_files("#file", str(photo))
    wait_for_status(page, "^exact")
    assert "upload=" in page.url
    before = hits(page)
    assert before
    text = tmp_path / "notes.jpg"
    text.write_text("no picture")
    watched.expected.append("415")
    page.set_input_files("#file", str(text))
    page.wait_for_selector("#problem:visible")
    assert "image" in page.inner_text("#problem")
    assert hits(page) == before


def test_words_alone_find_photos(watched: Watched) -> None:
    page = watched.page
    ask(page, PROMPT)
    wait_for_status(page, "^exact")
    assert "presence" in page.inner_text("#hits li:first-child .score")


def test_a_focus_that_nobody_indexed_gets_better_until_it_is_exact(watched: Watched) -> None:
    page = watched.page
    choose_first(page)
    ask(page, "an umbrella")
    said = wait_for_status(page, "^exact")
    assert "Still searching" not in said
    assert page.locator("#stop:visible").count() == 0


def test_a_second_focus_and_weights_change_the_order(watched: Watched) -> None:
    page = watched.page
    choose_first(page)
    ask(page, PROMPT)
    page.wait_for_selector("#focuses li:nth-child(1)")
    wait_for_status(page, "^exact")
    alone = hits(page)
    ask(page, "a lamp:-1")
    page.wait_for_selector("#focuses li:nth-child(2)")
    until(page, "document.querySelector('#focuses li:nth-child(2) input').value === '-1'")
    wait_for_status(page, "^exact")
    assert hits(page) != alone
    page.click("#hits li:first-child > button")
    assert page.locator("#viewer-shots .heat").count() == 2
    shot(page, "page-two-focuses")
    page.press("body", "Escape")
    page.click("#focuses li:nth-child(2) .text")
    assert page.get_attribute("#focuses li:nth-child(2) .text", "aria-pressed") == "true"


def test_the_dial_interpolates_and_then_steers(watched: Watched) -> None:
    page = watched.page
    choose_first(page)
    ask(page, PROMPT)
    page.wait_for_selector("#dial-section:visible")
    page.focus("#dial")
    page.wait_for_timeout(200)
    turn = "scale => { const dial = document.getElementById('dial'); dial.value = scale; dial.oninput(); }"
    page.evaluate(turn, 0.3)
    until(page, "/Exact at 0.30/.test(document.getElementById('dial-note').innerText)")
    assert page.inner_text("#dial-value") == "0.30"
    page.evaluate(turn, 0)
    until(page, "/Exact at 0.00/.test(document.getElementById('dial-note').innerText)")
    scores = [float(score) for score in page.locator("#hits .score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    shot(page, "page-dial")


def test_heatmaps_can_be_hidden(watched: Watched) -> None:
    page = watched.page
    choose_first(page)
    ask(page, PROMPT)
    until(page, "document.querySelectorAll('#hits .heat:not([hidden])').length > 3")
    opacity = "getComputedStyle(document.querySelector('#hits li:nth-child(3) .heat')).opacity"
    page.mouse.move(5, 5)
    until(page, f"{opacity} === '1'")
    page.uncheck("#heat")
    until(page, f"{opacity} === '0'")


def brush(page: Any, *points: tuple[float, float], number: int = 0) -> None:
    """Draw over a query photo from point to point, given as shares of its sides."""
    box = page.locator(".patches").nth(number).bounding_box()
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*at[0])
    page.mouse.down()
    for point in at[1:]:
        page.mouse.move(*point, steps=3)
    page.mouse.up()


def region(page: Any) -> str:
    return parse_qs(urlsplit(page.url).query).get("region", [""])[0]


def test_patches_are_marked_by_brush_and_keys_and_light_up_in_the_hits(watched: Watched) -> None:
    page = watched.page
    choose_first(page)
    page.click("#brush")
    page.wait_for_selector(".patches:visible")
    brush(page, (0.3, 0.3), (0.5, 0.3), (0.5, 0.5))
    wait_for_status(page, "^exact.*marked box")
    stroke = region(page)
    assert ";" in stroke
    until(page, "document.querySelectorAll('#hits .heat:not([hidden])').length > 3")
    assert page.get_attribute("#hits .heat", "src").startswith("data:image/png")
    page.focus(".patches")
    for key in ("ArrowDown", "ArrowDown", "Space"):
        page.keyboard.press(key)
    until(page, f"new URLSearchParams(location.search).get('region') !== {stroke!r}")
    wait_for_status(page, "^exact")
    page.click("#brush")
    page.mouse.move(5, 5)
    shot(page, "page-region")
    page.go_back()
    until(page, f"new URLSearchParams(location.search).get('region') === {stroke!r}")
    ask(page, PROMPT)
    wait_for_status(page, "^exact.*and the focus")
    heat = "document.querySelector('#hits .heat').getAttribute('src')"
    page.click("#focuses li:first-child .text")
    until(page, f"{heat}.includes('/heatmap?')")
    page.click("#focuses li:last-child .text")
    until(page, f"{heat}.startsWith('data:')")
    page.click("#clear-mark")
    until(page, "!location.search.includes('region')")
    wait_for_status(page, "^exact")


def test_a_second_and_a_third_photo_are_searched_with(watched: Watched, served: Served) -> None:
    page = watched.page
    choose_first(page)
    alone = hits(page)
    page.click("#hits li:nth-child(4) > button")
    page.click("#viewer-add")
    wait_for_status(page, "^exact.*mean of 2 photos")
    files = sorted((served.library.parent / "demo" / "photos").glob("*.jpg"))
    with page.expect_file_chooser() as chooser:
        page.click("#add-photo")
    chooser.value.set_files(str(files[-1]))
    wait_for_status(page, "^exact.*mean of 3 photos")
    mean = hits(page)
    assert mean != alone
    page.check("#joined-any")
    wait_for_status(page, "^exact.*any of 3 photos")
    address = page.url
    assert "any=true" in address
    ask(page, PROMPT)
    until(page, "document.querySelectorAll('#query-photos .heat:not([hidden])').length === 3")
    wait_for_status(page, "^exact")
    shot(page, "page-photos")
    page.goto(address)
    wait_for_status(page, "^exact.*any of 3 photos")
    for _ in range(2):
        page.click("#query-photos li:last-child button")
    until(page, "document.querySelectorAll('#query-photos li').length === 1")
    wait_for_status(page, "^exact")
    assert hits(page) == alone


def test_the_dial_steers_all_query_photos_and_a_part_of_one_is_marked(watched: Watched) -> None:
    page = watched.page
    choose_first(page)
    page.click("#hits li:nth-child(4) > button")
    page.click("#viewer-add")
    wait_for_status(page, "^exact.*mean of 2 photos")
    ask(page, PROMPT)
    page.wait_for_selector("#dial-section:visible")
    page.evaluate("() => { const dial = document.getElementById('dial'); dial.value = 0.3; dial.oninput(); }")
    until(page, "/Exact at 0.30/.test(document.getElementById('dial-note').innerText)")
    heats = page.locator("#query-photos .heat").evaluate_all("all => all.map(one => one.src.slice(0, 14))")
    assert heats == ["data:image/png"] * 2
    page.click("#brush")
    page.wait_for_selector(".patches:visible")
    brush(page, (0.3, 0.3), (0.6, 0.6), number=1)
    wait_for_status(page, "^exact.*of the query photos and the focus; by the mean of 2 photos")
    assert region(page).startswith("/")
    until(page, "document.getElementById('dial').disabled")
    assert "while a part is marked" in page.inner_text("#dial-note")
    page.click("#brush")
    shot(page, "page-part-of-several")
    page.reload()
    wait_for_status(page, "^exact.*of the query photos and the focus")
    until(page, "document.querySelectorAll('.patches:not([hidden])').length === 1")
    assert page.locator("#query-photos li").nth(1).locator(".patches:visible").count() == 1
    page.click("#clear-mark")
    wait_for_status(page, "^exact.*mean of 2 photos")
    until(page, "!document.getElementById('dial').disabled")


def test_two_prompts_stand_side_by_side_on_the_query_photo(watched: Watched) -> None:
    page = watched.page
    choose_first(page)
    for focus in (PROMPT, "a lamp"):
        ask(page, focus)
        wait_for_status(page, "^exact")
    page.click("#side-by-side")
    assert page.locator("#viewer-shots .heat").count() == 2
    captions = page.locator("#viewer-shots figcaption").all_inner_texts()
    assert captions == [PROMPT, "a lamp"]
    shot(page, "page-side-by-side")


def test_hits_and_their_points_on_the_map_mark_each_other(watched: Watched) -> None:
    page = watched.page
    choose_first(page)
    page.click("#tab-map")
    until(page, "/variance/.test(document.getElementById('map-note').innerText)")
    rings = page.locator("#map-rings")
    page.mouse.move(5, 5)
    page.wait_for_timeout(300)
    unmarked = rings.screenshot()
    page.hover("#hits li:nth-child(2)")
    page.wait_for_timeout(300)
    assert rings.screenshot() != unmarked
    shot(page, "page-map")
    box = page.locator("#map").bounding_box()
    found = None
    for i in range(24 * 24):  # until the pointer meets the point of a hit
        page.mouse.move(box["x"] + box["width"] * (i % 24) / 24, box["y"] + box["height"] * (i // 24) / 24)
        found = page.query_selector("#hits .pointed")
        if found:
            break
    assert found is not None


def test_a_server_killed_during_a_search_is_named_and_its_return_is_used(
    watched: Watched, served: Served
) -> None:
    page = watched.page
    choose_first(page)
    watched.expected += ["ERR_", "Failed to load resource"]
    ask(page, "a teapot on a table")
    page.wait_for_selector("#stop:visible")
    served.kill()
    try:
        page.wait_for_selector("#problem:visible")
        assert "steersearch serve" in page.inner_text("#problem")
        assert page.locator("#stop:visible").count() == 0
    finally:
        served.start()
    page.press("#focus", "Enter")
    wait_for_status(page, "^exact")
    assert page.locator("#problem:visible").count() == 0


def test_pca_is_shown_where_umap_cannot_be(watched: Watched, served: Served) -> None:
    page = watched.page
    page.click("#tab-map")
    until(page, "/variance/.test(document.getElementById('map-note').innerText)")
    refusal = {"status": 422, "detail": "takes minutes"}
    page.route("**/map?method=umap*", lambda route: route.fulfill(status=422, json=refusal))
    watched.expected.append("422")
    page.select_option("#map-method", "umap")
    until(
        page,
        "/^PCA is shown instead of UMAP: takes minutes/.test(document.getElementById('map-note').innerText)",
    )
    assert page.input_value("#map-method") == "pca"


def test_the_map_moves_when_another_prompt_arranges_it(watched: Watched) -> None:
    page = watched.page
    page.click("#tab-map")
    until(page, "/variance/.test(document.getElementById('map-note').innerText)")
    page.wait_for_timeout(500)
    before = page.locator("#map").screenshot()
    shot(page, "page-map")
    page.select_option("#map-focus", PROMPT)
    until(page, "document.getElementById('map-focus').value !== ''")
    until(page, "/variance/.test(document.getElementById('map-note').innerText)")
    page.wait_for_timeout(1500)
    assert page.locator("#map").screenshot() != before
    box = page.locator("#map").bounding_box()
    page.click("#lasso")
    corners = [(0.05, 0.05), (0.95, 0.05), (0.95, 0.95), (0.05, 0.95)]
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in [*points[1:], *points]:  # twice round
        page.mouse.move(*point, steps=4)
    page.mouse.up()
    page.wait_for_selector("#like-more:visible")
    page.click("#like-more")
    said = wait_for_status(page, "Rocchio")
    assert "Rocchio" in said
    assert hits(page)


def test_a_prompt_is_indexed_from_the_page(watched: Watched) -> None:
    page = watched.page
    page.click("#jobs-section summary")
    page.fill("#job-prompt", "a red bicycle")
    page.press("#job-prompt", "Enter")
    until(page, "/done: /.test(document.getElementById('jobs').innerText)")
    wait_until(
        lambda: (
            "a red bicycle" in page.locator("#prompts option").evaluate_all("all => all.map(o => o.value)")
        )
    )


def test_a_focus_of_ten_thousand_characters(watched: Watched) -> None:
    page = watched.page
    choose_first(page)
    ask(page, "word " * 2000)
    page.wait_for_selector("#remarks:not([hidden]) li")
    wait_for_status(page, "^exact")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 1280


def test_a_server_that_dies_is_named_and_its_return_is_used(watched: Watched, served: Served) -> None:
    page = watched.page
    choose_first(page)
    watched.expected += ["ERR_", "Failed to load resource"]
    served.kill()
    try:
        ask(page, PROMPT)
        page.wait_for_selector("#problem:visible")
        assert "steersearch serve" in page.inner_text("#problem")
    finally:
        served.start()
    page.reload()
    wait_for_status(page, "^exact")
    assert page.locator("#problem:visible").count() == 0


def test_it_fits_a_narrow_screen_and_the_keyboard_suffices(watched: Watched) -> None:
    page = watched.page
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    shot(page, "page-narrow")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "focus"
    page.keyboard.type(PROMPT)
    page.keyboard.press("Enter")
    assert "compared" in wait_for_status(page, "^exact")
    assert page.locator("#status").bounding_box()["y"] < 100  # it was scrolled to
    page.focus("#hits li:first-child > button")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.closest('li').dataset.number") == "1"
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer[open]")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    assert page.locator("#viewer[open]").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(watched: Watched, scheme: str) -> None:
    axe = os.environ.get("STEERSEARCH_AXE")  # the file axe.min.js of the npm package axe-core
    if axe is None:
        pytest.skip("name axe-core's axe.min.js in STEERSEARCH_AXE")
    page = watched.page
    page.emulate_media(color_scheme=scheme)
    choose_first(page)
    ask(page, PROMPT)
    page.wait_for_selector("#dial-section:visible")
    page.evaluate(Path(axe).read_text())  # not a script element: the policy forbids these

    def serious() -> list[tuple[str, str]]:
        found = page.evaluate("axe.run()")["violations"]
        impacts = ("serious", "critical")
        return [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in impacts]

    assert serious() == []
    shot(page, f"page-{scheme}")
    page.click("#brush")
    page.wait_for_selector(".patches:visible")
    brush(page, (0.3, 0.3), (0.5, 0.5))
    wait_for_status(page, "^exact.*and the focus")
    assert serious() == []
    page.click("#hits li:first-child > button")
    assert serious() == []
    page.click("#viewer-add")
    wait_for_status(page, "^exact.*mean of 2 photos")
    page.click("#tab-map")
    until(page, "/variance/.test(document.getElementById('map-note').innerText)")
    assert serious() == []

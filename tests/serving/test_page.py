"""The page in a real browser: a headless Chromium against a server of tiny models."""

import json
import re
from collections.abc import Iterator

import pytest

from c2c_lightning.responders.registry import T2T
from c2c_lightning.serving.http_server import HTTPServer
from c2c_lightning.serving.model_catalogue import ModelCatalogue
from c2c_lightning.serving.prefix_cache import PrefixCache
from c2c_lightning.serving.server_settings import ServerSettings
from tests.model.test_fusion_modes import build
from tests.serving.served import MESSAGE, catalogue, endless_model, fused_model, running
from tests.serving.test_sharer import without_its_sharer

playwright = pytest.importorskip("playwright.sync_api")
from tools.page_screenshot import headless_browser, installed_chromium  # noqa: E402  (it imports playwright)

Browser, Page, expect = playwright.Browser, playwright.Page, playwright.expect

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(installed_chromium() is None, reason="no Chromium is installed"),
]

QUESTION = "What is the capital of Nepi?"
COLUMNS = ("receiver", "t2t", "fused")
expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with headless_browser() as started:
        yield started


@pytest.fixture(scope="module")
def server() -> Iterator[HTTPServer]:
    """A receiver and two sharers."""
    with running(catalogue(fused_model(2))) as started:
        yield started


class Visit:
    """A page, the hosts that it has asked, and its errors."""

    def __init__(self, browser: Browser, url: str, **context: object) -> None:
        self.context = browser.new_context(**context)
        self.context.set_default_timeout(30_000)
        self.page: Page = self.context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on(
            "console", lambda message: message.type in ("error", "warning") and self.errors.append(message.text)
        )
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(url)

    def column(self, name: str, part: str = "") -> object:
        return self.page.locator(f"[data-column={name}] {part}".strip())

    def expect_states(self, state: str | re.Pattern[str]) -> None:
        for name in COLUMNS:
            expect(self.column(name)).to_have_attribute("data-state", state)

    def ask(self, tokens: int = 8) -> None:
        """Ask by keyboard."""
        expect(self.page.locator("#examples button").first).to_be_visible()
        self.page.get_by_label("Longest answer, tokens").fill(str(tokens))
        self.page.get_by_label("Question", exact=True).fill(QUESTION)
        self.page.keyboard.press("Enter")


@pytest.fixture
def visit(browser: Browser, server: HTTPServer) -> Iterator[Visit]:
    """A visit that asks no other host and has no error."""
    made = Visit(browser, server.url)
    yield made
    assert {url.split("/")[2] for url in made.requests} == {server.url.split("/")[2]}
    assert not made.errors
    made.context.close()


@pytest.fixture(scope="module")
def slow_server() -> Iterator[HTTPServer]:
    """Answers of up to 20,000 tokens."""
    with running(catalogue(endless_model()), ServerSettings(max_tokens=20_000)) as started:
        yield started


def test_three_answers_with_their_numbers(visit: Visit) -> None:
    visit.ask()
    visit.expect_states("done")
    for name in COLUMNS:
        assert re.fullmatch(r"\d+ ms|\d+\.\d\d s", visit.column(name, ".first").inner_text())
        assert re.fullmatch(r"\d+ ms|\d+\.\d\d s", visit.column(name, ".total").inner_text())
        assert re.fullmatch(r"\d+( \+ \d+ message)?", visit.column(name, ".count").inner_text())
    assert visit.column("receiver", ".bytes").inner_text() == "0 B"
    assert int(visit.column("fused", ".bytes").inner_text().replace(",", "").removesuffix(" B of cache")) > 1000
    expect(visit.column("t2t", ".note h3")).to_have_text("Message of the sharer")
    assert "message" in visit.column("t2t", ".count").inner_text()
    expect(visit.page.locator("#status")).to_contain_text("C2C: ")


def test_gates_and_tokens_are_readable_without_colours(visit: Visit) -> None:
    visit.ask()
    expect(visit.page.locator("#cache")).to_be_visible()
    rows = visit.page.locator("#gates ol")
    assert rows.count() == 4  # keys and values of two sharers
    assert {text.split()[-1] for text in rows.first.locator("li").all_text_contents()} == {"open"}
    assert all(text.endswith("%") for text in visit.page.locator("#tokens .change").all_inner_texts())
    visit.page.get_by_label("closed", exact=True).check()
    expect(rows.first.locator("li").first).to_contain_text("closed")
    assert visit.page.locator("#tokens .change").first.inner_text() == "0.0 %"


def test_another_questions_cache_is_asked_at_once_and_shows_its_question(visit: Visit) -> None:
    visit.ask()
    visit.expect_states("done")
    num_requests = len(visit.requests)
    visit.page.get_by_label("another question's").check()
    expect(visit.column("fused", ".note h3").nth(1)).to_have_text("Cache of another question")
    assert visit.column("fused", ".note p").nth(1).inner_text().endswith(("?", ".", "time."))
    expect(visit.column("fused", ".former h3")).to_have_text("Before: gates trained, this question's cache")
    assert [url.split("/v1/")[-1] for url in visit.requests[num_requests:]] == ["chat/completions"]  # C2C only


def test_sharers_can_be_left_out(visit: Visit) -> None:
    visit.ask()
    visit.expect_states("done")
    both = visit.column("fused", ".bytes").inner_text()
    boxes = visit.page.locator("#sharers input")
    boxes.nth(1).uncheck()
    expect(visit.column("fused", ".former h3")).to_be_visible()
    expect(visit.column("fused")).to_have_attribute("data-state", "done")
    assert visit.column("fused", ".bytes").inner_text() != both
    boxes.nth(0).uncheck()
    expect(visit.column("fused", ".bytes")).to_have_text("0 B")
    expect(visit.page.locator("#tokens")).to_have_text("No token is fused.")


def test_private_text_is_read_by_the_sharers_only(visit: Visit) -> None:
    bodies: list[dict] = []
    visit.page.on("request", lambda request: request.method == "POST" and bodies.append(request.post_data_json))
    visit.page.get_by_text("Private text for the sharer").click()
    visit.page.locator("#context").fill("The capital of Nepi is Derna.")
    visit.ask()
    visit.expect_states("done")
    assert len(bodies) == 3
    for body in bodies:
        assert body["c2c"]["sharer_context"] == "The capital of Nepi is Derna."
        assert body["messages"] == [{"role": "user", "content": QUESTION}]


def test_answers_stream_at_once_and_stop_one_by_one(browser: Browser, slow_server: HTTPServer) -> None:
    visit = Visit(browser, slow_server.url)
    visit.ask(20_000)
    visit.expect_states("answering")
    expect(visit.page.get_by_role("button", name="Stop all")).to_be_enabled()
    visit.page.get_by_role("button", name="Stop: C2C").click()
    expect(visit.column("fused")).to_have_attribute("data-state", "stopped")
    stopped = visit.column("fused", ".answer").text_content()
    before = {name: len(visit.column(name, ".answer").text_content()) for name in COLUMNS}
    for name in ("receiver", "t2t"):
        expect(visit.column(name)).to_have_attribute("data-state", "answering")
        longer = re.compile(rf"[\s\S]{{{before[name] + 1},}}")
        expect(visit.column(name, ".answer")).to_have_text(longer)
    assert stopped
    assert visit.column("fused", ".answer").text_content() == stopped
    visit.page.keyboard.press("Escape")
    visit.expect_states("stopped")
    expect(visit.page.get_by_role("button", name="Stop all")).to_be_disabled()
    assert not visit.errors
    visit.context.close()


def test_the_sharers_message_is_shown_while_it_is_written(browser: Browser) -> None:
    message = T2T(message_prompt="Say: {question}", message_max_new_tokens=20_000)
    with running(ModelCatalogue({"pair": endless_model()}, PrefixCache(0), message)) as writing:
        visit = Visit(browser, writing.url)
        visit.ask()
        expect(visit.column("t2t")).to_have_attribute("data-state", "message")
        expect(visit.column("t2t", ".note p")).to_have_text(re.compile(r"[\s\S]{50,}"))
        assert visit.column("t2t", ".answer").text_content() == ""
        visit.page.get_by_role("button", name="Stop: Text-to-text").click()
        expect(visit.column("t2t")).to_have_attribute("data-state", "stopped")
        visit.context.close()


def test_errors_of_the_server_are_shown(browser: Browser, server: HTTPServer) -> None:
    visit = Visit(browser, server.url)
    expect(visit.page.locator("#examples button").first).to_be_visible()
    visit.page.get_by_label("Question", exact=True).fill("long " * 3000)
    visit.page.keyboard.press("Enter")
    visit.expect_states("failed")
    for name in COLUMNS:
        expect(visit.column(name, ".failure")).to_contain_text("token")
    visit.page.route("**/v1/chat/completions", lambda route: route.abort())
    visit.ask()
    expect(visit.column("receiver", ".failure")).to_have_text("The server cannot be reached.")
    visit.context.close()


def test_answers_are_never_markup(visit: Visit) -> None:
    markup = "<img src=x onerror=alert(1)>"
    chunk = {"choices": [{"index": 0, "delta": {"content": markup}, "finish_reason": "stop", "c2c": {}}]}
    body = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
    visit.page.route("**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    visit.ask()
    visit.expect_states("done")
    assert visit.column("fused", ".answer").text_content() == markup
    assert visit.page.locator("main img").count() == 0


def test_the_key_is_asked_for_and_kept_for_the_tab_only(browser: Browser) -> None:
    with running(catalogue(), ServerSettings(api_key="right")) as locked:
        visit = Visit(browser, locked.url)
        dialog = visit.page.get_by_role("dialog", name="API key")
        expect(dialog).to_be_visible()
        for key in ("wrong", "right"):
            dialog.get_by_label("Key", exact=True).fill(key)
            visit.page.keyboard.press("Enter")
            if key == "wrong":
                expect(dialog).to_contain_text("The server refuses this key.")
        expect(dialog).to_be_hidden()
        visit.ask()
        visit.expect_states("done")
        assert visit.page.evaluate("[sessionStorage.c2c_api_key, localStorage.length, document.cookie]") == [
            "right",
            0,
            "",
        ]
        visit.page.get_by_role("button", name="Forget the API key").click()
        assert visit.page.evaluate("sessionStorage.length") == 0
        visit.context.close()


def test_without_text_to_text_and_without_its_sharer_c2c_says_so(browser: Browser) -> None:
    model = without_its_sharer(build("gemma3", "qwen2", "prefill"))
    with running(catalogue(model)) as alone:
        visit = Visit(browser, alone.url)
        expect(visit.column("t2t")).to_contain_text("Not served: the sharer is in another process")
        visit.ask()
        expect(visit.column("fused", ".note h3")).to_have_text("Sharers that could not be reached")
        expect(visit.column("receiver")).to_have_attribute("data-state", "done")
        assert not visit.errors
        visit.context.close()


def test_one_of_several_fused_pairs_is_chosen(browser: Browser) -> None:
    models = {"one": fused_model(), "two": fused_model(2)}  # their language models have the same names
    with running(ModelCatalogue(models, PrefixCache(2**26), MESSAGE)) as several:
        visit = Visit(browser, several.url)
        visit.page.get_by_label("Fused pair").select_option("c2c:two")
        expect(visit.page.locator("#sharers input")).to_have_count(2)
        bodies: list[dict] = []
        visit.page.on("request", lambda request: request.method == "POST" and bodies.append(request.post_data_json))
        visit.ask()
        visit.expect_states("done")
        assert [body["model"] for body in bodies] == ["receiver:1", "t2t:1", "c2c:two"]
        visit.context.close()


@pytest.mark.parametrize("width", [320, 800, 1280])
def test_no_width_needs_horizontal_scrolling(browser: Browser, server: HTTPServer, width: int) -> None:
    visit = Visit(browser, server.url, viewport={"width": width, "height": 640})
    visit.page.get_by_text("Private text for the sharer").click()
    visit.ask()
    visit.expect_states("done")
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    outside = (
        "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth).length"
    )
    assert visit.page.evaluate(outside) == 0
    visit.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_contrast_in_both_colour_schemes(browser: Browser, server: HTTPServer, scheme: str) -> None:
    visit = Visit(browser, server.url, color_scheme=scheme)
    visit.ask()
    visit.expect_states("done")
    lightness = visit.page.evaluate(
        "getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).map(Number)"
    )
    assert (sum(lightness) / 3 > 127) == (scheme == "light")
    assert visit.page.evaluate(LOW_CONTRAST) == []
    visit.context.close()


def test_all_controls_have_names_and_are_reached_by_keyboard(visit: Visit) -> None:
    expect(visit.page.locator("#examples button").first).to_be_visible()
    expect(visit.page.get_by_label("Question", exact=True)).to_be_focused()
    visit.page.keyboard.type("Two")
    visit.page.keyboard.press("Shift+Enter")
    visit.page.keyboard.type("lines")
    expect(visit.page.get_by_label("Question", exact=True)).to_have_value("Two\nlines")
    reached = set()
    for _ in range(30):
        visit.page.keyboard.press("Tab")
        reached.add(
            visit.page.evaluate(
                "document.activeElement.name || document.activeElement.id || document.activeElement.type"
            )
        )
    assert {"submit", "gates", "cache", "sharer", "max-tokens", "question"} <= reached
    assert visit.page.evaluate(WITHOUT_NAME) == []
    visit.page.locator("input[name=gates]").first.focus()
    visit.page.keyboard.press("ArrowRight")
    expect(visit.page.get_by_label("open", exact=True)).to_be_checked()
    assert {visit.column(name).get_attribute("data-state") for name in COLUMNS} == {"ready"}  # nothing was asked yet


# Controls without a label, an accessible name or a text.
WITHOUT_NAME = """[...document.querySelectorAll("button, input, select, textarea")]
  .filter((e) => !(e.labels?.length || e.ariaLabel || e.textContent.trim()))
  .map((e) => e.outerHTML)"""

# Texts whose contrast with the background behind them is below 4.5 : 1 (WCAG AA), other than disabled buttons.
LOW_CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgb = (layers) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const layer of layers) { canvas.fillStyle = layer; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const luminance = (colour) => colour.map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
  const behind = (e) => {
    const layers = [];
    for (; e; e = e.parentElement) layers.unshift(getComputedStyle(e).backgroundColor);
    return layers;
  };
  return [...document.querySelectorAll("body *")]
    .filter((e) => e.checkVisibility() && !e.disabled)
    .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .filter((e) => {
      const layers = behind(e);
      const pair = [rgb(layers), rgb([...layers, getComputedStyle(e).color])].map(luminance).sort((a, b) => b - a);
      return (pair[0] + 0.05) / (pair[1] + 0.05) < 4.5;
    })
    .map((e) => `${e.tagName} ${e.className} ${e.textContent.slice(0, 40)}`);
}"""

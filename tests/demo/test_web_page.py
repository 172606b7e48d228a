"""The page, in Chromium."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from a2f_jax import cli
from a2f_jax.demo.web_page import delete_old_files, listening_socket
from a2f_jax.errors import UserError

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def start(weights, temporary):
    """Starts a page for weights in a process of its own."""
    program = "import sys; from a2f_jax import cli; sys.exit(cli.main())"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "serve", "--port", "0", "--weights", weights, "--pixel-limit", "4000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    return process, process.stdout.readline().split()[0]


@pytest.fixture(scope="module")
def server(weights, tmp_path_factory):
    """The address of a page for tiny weights."""
    temporary = tmp_path_factory.mktemp("temporary")
    process, address = start(weights, temporary)
    yield address
    # A page that is still open in a browser waits for the server.
    with urllib.request.urlopen(f"{address.rstrip('/')}/gradio_api/heartbeat/open"):
        process.send_signal(signal.SIGTERM)  # or Ctrl-C, after which uploads must be deleted, too
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (130, "", "a2f: stopped\n")
    assert not list(temporary.glob("a2f-*"))  # uploads and results


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        pytest.skip("needs Chromium: install the package chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def choose(page, file):
    if page.locator("#picture").get_by_label("Clear").is_visible():
        page.locator("#picture").get_by_label("Clear").click()
        page.locator("#start:disabled").wait_for()  # otherwise the click below could be one without a picture
    page.locator("#picture input[type=file]").set_input_files(file)
    page.locator("#start:enabled").click()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_picture_is_upscaled_compared_and_downloaded(width, server, browser, picture, weights, tmp_path):
    page = browser.new_page(viewport={"width": width, "height": 900})
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(server)
    page.locator("#start:disabled").wait_for()  # nothing to upscale yet
    choose(page, picture)
    page.locator("#status").get_by_text("52×40 → 104×80 pixels").wait_for()
    assert "with tiny.safetensors" in page.locator("#status").inner_text()
    images = page.locator("#slider img")
    images.nth(1).wait_for()
    sizes = images.evaluate_all("images => images.map(image => [image.naturalWidth, image.naturalHeight])")
    assert sizes == [[104, 80], [104, 80]]
    with page.expect_download() as download:
        page.locator("#download").click()
    assert download.value.suggested_filename == "picture-x2.png"
    reference = tmp_path / "reference.png"
    assert cli.main(["upscale", str(picture), "-o", str(reference), "--weights", weights]) == 0
    assert pathlib.Path(download.value.path()).read_bytes() == reference.read_bytes()
    assert page.evaluate("document.documentElement.scrollWidth") == width  # nothing sticks out
    assert not [url for url in requests if not url.startswith((server, "data:", "blob:"))]
    page.close()


def test_results_are_deleted_when_the_page_is_closed_or_upscales_another_picture(weights, browser, picture, tmp_path):
    process, address = start(weights, tmp_path)

    def results():
        return sorted(path.name for path in tmp_path.rglob("*.png") if path.name != picture.name)

    try:
        page = browser.new_page()
        page.goto(address)
        for _ in range(2):
            choose(page, picture)
            page.locator("#status").get_by_text("pixels in").wait_for()
            assert results() == ["picture-x2.png", "shown-after.png", "shown-before.png"]
        page.close()
        until = time.monotonic() + 30
        while results() and time.monotonic() < until:
            time.sleep(0.1)
        assert results() == []
    finally:
        process.terminate()
        process.communicate(timeout=60)


# What screen readers say: what appears in elements that were there before.
_LISTEN = """() => {
    window.said = [];
    new MutationObserver(changes => {
        for (const change of changes) {
            const node = change.target.nodeType === 1 ? change.target : change.target.parentElement;
            const region = node && node.closest('#status[role=status], #status [role=status]');
            if (region) window.said.push(region.textContent.trim());
        }
    }).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""


def test_results_and_errors_are_said_by_screen_readers(server, browser, picture, tmp_path):
    page = browser.new_page()
    page.goto(server)
    page.locator("#start:disabled").wait_for()
    page.evaluate(_LISTEN)
    broken = tmp_path / "broken.png"
    broken.write_bytes(picture.read_bytes()[:200])
    choose(page, broken)
    page.locator("#status .error").wait_for()
    choose(page, picture)
    page.locator("#status").get_by_text("pixels in").wait_for()
    said = page.evaluate("window.said")
    assert any("broken.png" in text for text in said)
    assert any("52×40 → 104×80 pixels" in text for text in said)
    page.close()


def test_a_picture_is_recognized_by_its_content(server, browser, picture, tmp_path):
    page = browser.new_page()
    page.goto(server)
    unnamed, pdf = tmp_path / "photo", tmp_path / "document.pdf"
    unnamed.write_bytes(picture.read_bytes())
    pdf.write_bytes(b"%PDF-1.4")
    choose(page, unnamed)
    page.locator("#status").get_by_text("52×40 → 104×80 pixels").wait_for()
    choose(page, pdf)
    page.locator("#status .error").get_by_text("document.pdf is a PDF document: export its pages").wait_for()
    page.close()


def test_errors_are_those_of_the_command_line_and_the_next_picture_works(server, browser, picture, tmp_path, capsys):
    page = browser.new_page()
    page.goto(server)
    broken, large = tmp_path / "broken.png", tmp_path / "large.png"
    broken.write_bytes(picture.read_bytes()[:200])
    Image.new("RGB", (64, 64)).save(large)
    for file in (broken, large):
        choose(page, file)
        page.locator("#status .error").get_by_text(file.name).wait_for()
        assert cli.main(["upscale", str(file), "-o", str(tmp_path / "out.png"), "--pixel-limit", "4000"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        shown = page.locator("#status").inner_text().strip()
        assert shown == line.removeprefix("a2f: error: ").replace(str(file), file.name)
        assert not page.locator("#download").is_visible()
    choose(page, picture)
    page.locator("#status").get_by_text("pixels in").wait_for()
    page.close()


def test_the_scales_are_those_of_the_chosen_model(server, browser):
    page = browser.new_page()
    page.goto(server)
    scales = page.locator("#scale label")
    scales.first.wait_for()
    assert scales.all_inner_texts() == ["×2"]
    page.locator("#model input").click()
    page.get_by_role("option", name="a2f-sd", exact=True).click()
    scales.nth(2).wait_for()
    assert scales.all_inner_texts() == ["×2", "×3", "×4"]
    page.close()


def test_the_browser_may_load_nothing_from_elsewhere_and_other_sites_may_not_reach_the_page(server):
    with urllib.request.urlopen(server) as response:
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]
    rebound = urllib.request.Request(server, headers={"Host": "example.org"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(rebound)
    upload = f"{server}/gradio_api/upload"
    for headers in ({"Origin": "https://example.org"}, {"Origin": server, "Sec-Fetch-Site": "cross-site"}):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(urllib.request.Request(upload, b"a picture", headers=headers))
    # Behind a proxy, the origin is another one than the host. The content is no form, which the page itself says.
    proxied = {"Origin": "https://example.org", "Sec-Fetch-Site": "same-origin"}
    with pytest.raises(urllib.error.HTTPError, match=r"4(?!03)"):
        urllib.request.urlopen(urllib.request.Request(upload, b"a picture", headers=proxied))


def test_files_that_were_not_uploaded_are_not_read(weights, tmp_path, request):
    secret, temporary = tmp_path / "a-secret.png", tmp_path / "temporary"
    Image.new("RGB", (30, 20)).save(secret)
    temporary.mkdir()
    process, server = start(weights, temporary)
    request.addfinalizer(process.kill)
    with urllib.request.urlopen(f"{server}/config") as response:
        events = json.load(response)["dependencies"]
    assert len(events) > 5
    stolen = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    for event in events:
        session = f"session{event['id']}"
        call = {"fn_index": event["id"], "session_hash": session, "data": [stolen] * len(event["inputs"])}
        headers = {"Content-Type": "application/json", "Origin": server}
        join = urllib.request.Request(f"{server}/gradio_api/queue/join", json.dumps(call).encode(), headers=headers)
        with urllib.request.urlopen(join):
            pass
        with urllib.request.urlopen(f"{server}/gradio_api/queue/data?session_hash={session}", timeout=60) as stream:
            messages = stream.read().decode()
        assert "process_completed" in messages
        assert '"success":false' in messages or not event["inputs"]
    assert not list(temporary.glob("**/a-secret*"))
    process.terminate()
    assert secret.name in process.communicate(timeout=60)[1]  # what was refused


def test_old_files_are_deleted_and_new_ones_kept(tmp_path):
    for name, age in (("deep/old", 100), ("new", 1)):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
        os.utime(file, (time.time() - age,) * 2)
    delete_old_files(tmp_path, 50)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["new"]


def test_behind_a_proxy_the_page_loads_from_the_address_of_the_proxy(server):
    headers = {"X-Forwarded-Host": "demo.example.org", "X-Forwarded-Proto": "https", "Sec-Fetch-Site": "same-origin"}
    with urllib.request.urlopen(urllib.request.Request(server, headers=headers)) as page:
        assert '"root":"https://demo.example.org"' in page.read().decode()


def test_an_address_that_cannot_be_used_is_refused():
    with listening_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1, port {port}: Address already in use"):
            listening_socket("127.0.0.1", port)
    for host in ("192.0.2.1", "a..b"):
        with pytest.raises(UserError, match=f"cannot listen on {host}") as caught:
            listening_socket(host, 0)
        assert caught.value.parameter == "host"

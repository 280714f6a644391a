"""The status page in headless Chromium, driven by chromedriver's own HTTP protocol (W3C WebDriver); standard library only."""
import base64, json, os, pathlib, shutil, socket, struct, subprocess, tempfile, time, urllib.request

BIN = os.environ["PINFOLD_BIN"]
OUT = pathlib.Path("target/compat")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def call(method, url, body=None):
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, method=method, data=data, headers={"content-type": "application/json"})
    return json.loads(urllib.request.urlopen(request, timeout=60).read() or b"{}")


def until(what, check, limit=60):
    end = time.time() + limit
    while time.time() < end:
        value = check()
        if value:
            return value
        time.sleep(0.2)
    raise SystemExit(f"not within {limit} s: {what}")


class Browser:
    def __init__(self, folder):
        port = free_port()
        self.driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        base = f"http://127.0.0.1:{port}"
        until("chromedriver answers", lambda: self.ready(base))
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
                     "--disable-component-update", "--disable-sync", "--window-size=1280,1000", f"--user-data-dir={folder}/chromium"]
        session = call("POST", base + "/session", {"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": arguments},
                       "goog:loggingPrefs": {"browser": "ALL"}}}})
        self.url = f"{base}/session/{session['value']['sessionId']}"

    @staticmethod
    def ready(base):
        try:
            return call("GET", base + "/status")["value"]["ready"]
        except OSError:
            return False

    def go(self, url):
        call("POST", self.url + "/url", {"url": url})

    def run(self, script):
        return call("POST", self.url + "/execute/sync", {"script": script, "args": []})["value"]

    def text(self):
        return self.run("return document.body.innerText")

    def screenshot(self, path):
        png = base64.b64decode(call("GET", self.url + "/screenshot")["value"])
        path.write_bytes(png)
        return struct.unpack(">II", png[16:24])

    def size(self, width, height):
        call("POST", self.url + "/window/rect", {"width": width, "height": height})

    def complaints(self):
        entries = call("POST", self.url + "/se/log", {"type": "browser"})["value"]
        return [e["message"] for e in entries if e["level"] in ("SEVERE", "WARNING") and "favicon" not in e["message"]]

    def close(self):
        try:
            call("DELETE", self.url)
        finally:
            self.driver.terminate()
            self.driver.wait(20)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="pinfold-page-")
    source = pathlib.Path(folder, "photos")
    source.mkdir()
    for i in range(5):
        (source / f"picture-{i}.bin").write_bytes(bytes([i]) * 300_000)
    peers = subprocess.Popen([BIN, "try", str(source), "--json", "--dir", f"{folder}/peers"], stdout=subprocess.PIPE, text=True)
    browser = None
    try:
        kept = json.loads(peers.stdout.readline())
        api = kept["apis"][0]
        browser = Browser(folder)
        browser.go(api + "/")
        short = kept["root"][-6:]
        text = until("the page names the root", lambda: (lambda t: t if short in t else None)(browser.text()))
        for word in ("one", "two", "three", "pinned", "photos"):
            assert word in text, f"{word!r} is not on the page:\n{text}"
        size = browser.screenshot(OUT / "page.png")
        assert size[0] >= 800, size
        # The page changes by itself: something added meanwhile appears without a reload.
        browser.run("window.untouched = 1")
        (source / "late.bin").write_bytes(b"late" * 1000)
        added = subprocess.run([BIN, "add", str(source / "late.bin"), "--api", api, "--json", "--copies", "2", "--wait", "2"], capture_output=True, text=True)
        assert added.returncode == 0, added.stderr
        root = json.loads(added.stdout.strip().splitlines()[-1])["cid"]
        until("the new pin appears by itself", lambda: root[-6:] in browser.text())
        assert browser.run("return window.untouched") == 1, "the page was loaded anew"
        browser.size(360, 800)
        wide = browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 1, f"at 360 px the page is {wide} px too wide"
        browser.screenshot(OUT / "page-narrow.png")
        complaints = browser.complaints()
        assert not complaints, complaints
        print(f"note: screenshots in {OUT}")
    finally:
        if browser:
            browser.close()
        peers.terminate()
        peers.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


main()

"""A headless Chromium over its DevTools protocol, for tests of HTML pages."""

import base64
import json
import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium is installed (Debian: apt install chromium)"
)


class Page:
    """One tab, what it loaded and what went wrong in it."""

    def __init__(self, socket):
        self.socket, self.number, self.events = socket, 0, []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method, **parameters):
        """Call a method of the protocol and return its result."""
        self.number += 1
        call = {"id": self.number, "method": method, "params": parameters}
        self.socket.send(json.dumps(call))
        while (message := json.loads(self.socket.recv())).get("id") != self.number:
            self.events.append(message)
        assert "error" not in message, message
        return message["result"]

    def open(self, path, *, width=1440, dark=False, height=900, media=""):
        """Open a file and return the seconds until its load event."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media=media, features=[scheme])
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self.send("Emulation.setDeviceMetricsOverride", mobile=False, **size)
        self.events.clear()
        begin = time.monotonic()
        self.send("Page.navigate", url=Path(path).resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(json.loads(self.socket.recv()))
        return time.monotonic() - begin

    def run(self, script):
        """Return the value of an expression, or what its promise resolves to."""
        options = {"returnByValue": True, "awaitPromise": True}
        answer = self.send("Runtime.evaluate", expression=script, **options)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, condition, seconds=600):
        """Wait until an expression is true and return the seconds."""
        begin = time.monotonic()
        while not self.run(condition):
            assert time.monotonic() - begin < seconds, condition
            time.sleep(0.02)
        return time.monotonic() - begin

    def drag(self, corners):
        """Press the mouse at the first corner, pass the others and release it at the last."""
        mouse = {"button": "left", "buttons": 1, "clickCount": 1}
        kinds = ["mousePressed", *["mouseMoved"] * (len(corners) - 1)]
        for kind, (x, y) in zip(kinds, corners, strict=True):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **mouse)
        x, y = corners[-1]
        self.send("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, **mouse)

    def click(self, selector):
        """Click the middle of an element with the mouse."""
        box = self.run(f"document.querySelector('{selector}').getBoundingClientRect().toJSON()")
        self.drag([(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)])

    def download(self, selector, folder):
        """Click an element and return the file that the browser saves in an empty folder."""
        self.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        self.click(selector)
        begin = time.monotonic()
        while not (found := [p for p in folder.iterdir() if p.suffix != ".crdownload"]):
            assert time.monotonic() - begin < 600, "nothing is downloaded"
            time.sleep(0.05)
        return found[0]

    @property
    def requests(self):
        """Addresses that the page asked for besides its own."""
        sent = [e for e in self.events if e["method"] == "Network.requestWillBeSent"]
        urls = [event["params"]["request"]["url"] for event in sent]
        return [url for url in urls[1:] if not url.startswith(("data:", "blob:"))]

    @property
    def errors(self):
        """Errors and warnings of the console."""
        kinds = {
            "Runtime.exceptionThrown": lambda event: True,
            "Log.entryAdded": lambda event: event["entry"]["level"] in ("error", "warning"),
            "Runtime.consoleAPICalled": lambda event: event["type"] in ("error", "warning"),
        }
        return [
            event["params"]
            for event in self.events
            if event["method"] in kinds and kinds[event["method"]](event["params"])
        ]

    @property
    def overflow(self):
        """Pixels by which the page is wider than its window."""
        return self.run("document.documentElement.scrollWidth - innerWidth")

    def serious_faults(self):
        """Return the serious and critical findings of axe-core."""
        import axe_core_python

        script = Path(axe_core_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
        self.run(f"{script}; 0")
        found = self.run("axe.run().then(result => result.violations)")
        return [
            (fault["id"], [node["html"][:120] for node in fault["nodes"]][:3])
            for fault in found
            if fault["impact"] in ("serious", "critical")
        ]

    def screenshot(self, path, *, full=False):
        """Write a PNG of the window, or of the whole page."""
        answer = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        Path(path).write_bytes(base64.b64decode(answer["data"]))


@contextmanager
def open_browser(folder):
    """Start Chromium with its profile in a folder and yield a `Page`."""
    import websocket

    options = ["--headless=new", "--remote-debugging-port=0", "--disable-gpu", "--no-first-run"]
    options += ["--disable-background-networking", f"--user-data-dir={folder}"]
    options += ["--no-sandbox"] if os.geteuid() == 0 else []
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([CHROMIUM, *options, "about:blank"], **quiet)
    try:
        port, begin = Path(folder) / "DevToolsActivePort", time.monotonic()
        while not (port.is_file() and port.read_text().strip()):
            assert time.monotonic() - begin < 600, "Chromium does not start"
            time.sleep(0.05)
        address = f"http://127.0.0.1:{port.read_text().split()[0]}/json"
        targets = requests.get(address, timeout=600).json()
        url = next(entry for entry in targets if entry["type"] == "page")["webSocketDebuggerUrl"]
        socket = websocket.create_connection(url, timeout=600, suppress_origin=True)
        yield Page(socket)
        socket.close()
    finally:
        process.terminate()
        process.wait(timeout=600)

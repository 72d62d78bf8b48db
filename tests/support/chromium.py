"""A real browser that looks at a page: headless Chromium over its DevTools protocol."""

import base64
import itertools
import json
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
DESK = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
DEADLINE_S = 60


class Browser:
    """Headless Chromium over its DevTools protocol."""

    def __init__(self, url: str) -> None:
        self._socket = connect(url, max_size=None, open_timeout=DEADLINE_S)
        self._ids = itertools.count(1)
        self._events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.ask(f"{domain}.enable")

    _session: str | None = None

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self._events.append(answer)

    def _receive(self) -> dict[str, Any]:
        return json.loads(self._socket.recv(DEADLINE_S))

    def show(self, page: Path, screen: dict[str, Any], scheme: str) -> None:
        self._events.clear()
        self.ask("Emulation.setDeviceMetricsOverride", **screen)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.ask("Emulation.setEmulatedMedia", features=[feature])
        self.ask("Page.navigate", url=page.as_uri())
        while "Page.loadEventFired" not in (event.get("method") for event in self._events):
            self._events.append(self._receive())

    def tell(self, expression: str) -> Any:
        answer = self.ask(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"]["value"]

    def requests(self) -> list[str]:
        return [
            event["params"]["request"]["url"]
            for event in self._events
            if event.get("method") == "Network.requestWillBeSent"
        ]

    def complaints(self) -> list[str]:
        return [
            event["params"]["entry"]["text"]
            for event in self._events
            if event.get("method") == "Log.entryAdded"
        ]

    def picture(self, to: Path) -> None:
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        to.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self._socket.close()


def look(browser: Browser, page: Path, screen: dict[str, Any], scheme: str) -> int:
    """Nothing broken, nothing fetched, nothing wider than the screen, all to be read: how many
    pictures the page shows."""
    browser.show(page, screen, scheme)
    # A lazy or wrong picture shows in what decoding it comes to.
    sizes: list[int] = browser.tell(
        "Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth, () => 0)))"
    )
    assert all(size > 0 for size in sizes)
    assert [u for u in browser.requests() if not u.startswith(("data:", "file:"))] == []
    assert browser.complaints() == []
    assert browser.tell("innerWidth") == screen["width"]
    assert browser.tell("document.documentElement.scrollWidth") <= screen["width"]
    # What is wider scrolls in a box of its own; no element hangs over the edge unseen.
    over = browser.tell(
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') && "
        "e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 80))"
    )
    assert over == []
    assert browser.tell(_CONTRAST) >= 4.5
    return len(sizes)


# The least contrast of any text with the page behind it, as WCAG 2 defines it.
_CONTRAST = """(() => {
  const channels = c => c.match(/[0-9.]+/g).map(Number);
  const light = c => channels(c).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor, parts = channels(c);
      if (parts.length === 3 || parts[3] > 0) return c;
    }
  };
  const texts = [...document.querySelectorAll('body *')].filter(
    e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
  return Math.min(...texts.map(e => {
    const a = light(getComputedStyle(e).color), b = light(behind(e));
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }));
})()"""

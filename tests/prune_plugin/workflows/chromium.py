"""A page in headless Chromium, driven by its DevTools protocol over a pipe: no driver is needed."""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), ''
)
FLAGS = (
    '--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--hide-scrollbars', '--remote-debugging-pipe',
)  # fmt: skip
KEYS = {'ArrowRight': 39, 'ArrowLeft': 37, 'Tab': 9, 'Home': 36, 'End': 35}


class Page:
    """One page; a context manager that ends the browser.

    Attributes:
        requests: Addresses that the page asked for.
        errors: What its scripts raised, and what its policy refused.
    """

    def __init__(self, profile: Path):
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.number, self.session, self.rest = 0, None, b''
        there, self.out = os.pipe()
        self.back, here = os.pipe()

        def as_three_and_four() -> None:
            low, high = os.dup(there), os.dup(here)
            os.dup2(low, 3)
            os.dup2(high, 4)

        self.process = subprocess.Popen(
            [BROWSER, *FLAGS, f'--user-data-dir={profile}'], close_fds=False,
            preexec_fn=as_three_and_four, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(there)
        os.close(here)
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        attached = self.call('Target.attachToTarget', targetId=target, flatten=True)
        self.session = attached['sessionId']
        for domain in ('Page', 'Runtime', 'Network', 'Log'):
            self.call(f'{domain}.enable')

    def __enter__(self) -> 'Page':
        """Itself."""
        return self

    def __exit__(self, *_) -> None:
        """End the browser."""
        self.process.kill()
        self.process.wait()
        os.close(self.out)
        os.close(self.back)

    def read(self) -> dict[str, Any]:
        """The next message."""
        while b'\0' not in self.rest:
            data = os.read(self.back, 1 << 20)
            assert data, 'the browser has ended'
            self.rest += data
        message, _, self.rest = self.rest.partition(b'\0')
        found = json.loads(message)
        method, params = found.get('method'), found.get('params', {})
        if method == 'Network.requestWillBeSent':
            self.requests.append(params['request']['url'])
        elif method == 'Runtime.exceptionThrown':
            self.errors.append(json.dumps(params['exceptionDetails'])[:500])
        elif method == 'Log.entryAdded' and params['entry']['level'] == 'error':
            self.errors.append(params['entry']['text'])
        return found

    def call(self, method: str, **params) -> dict[str, Any]:
        """A command's result."""
        self.number += 1
        message = dict(id=self.number, method=method, params=params)
        if self.session:
            message['sessionId'] = self.session
        os.write(self.out, json.dumps(message).encode() + b'\0')
        while (found := self.read()).get('id') != self.number:
            pass
        assert 'error' not in found, found
        return found['result']

    def open(self, url: str) -> None:
        """Load a page to its end."""
        self.call('Page.navigate', url=url)
        while self.read().get('method') != 'Page.loadEventFired':
            pass

    def run(self, script: str) -> Any:
        """The value of an expression in the page; promises are awaited."""
        found = self.call(
            'Runtime.evaluate', expression=script, returnByValue=True, awaitPromise=True
        )
        assert 'exceptionDetails' not in found, found['exceptionDetails']
        return found['result'].get('value')

    def press(self, key: str) -> None:
        """Press and release a key."""
        word = dict(key=key, code=key, windowsVirtualKeyCode=KEYS[key])
        self.call('Input.dispatchKeyEvent', type='keyDown', **word)
        self.call('Input.dispatchKeyEvent', type='keyUp', **word)

    def view(self, width: int, height: int, scheme: str = 'light') -> None:
        """Set the window's size in pixels and the colour scheme."""
        size = dict(width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call('Emulation.setDeviceMetricsOverride', **size)
        feature = dict(name='prefers-color-scheme', value=scheme)
        self.call('Emulation.setEmulatedMedia', features=[feature])

    def shot(self, path: Path) -> None:
        """Save the whole page as a PNG."""
        data = self.call('Page.captureScreenshot', captureBeyondViewport=True)['data']
        path.write_bytes(base64.b64decode(data))

    def violations(self) -> list[str]:
        """What axe has to say against the page: contrast, names, keyboard, structure."""
        axe = pytest.importorskip('axe_core_python', reason='make test-browser installs axe')
        self.run((Path(axe.__file__).parent / 'axe.min.js').read_text() + '; 0')
        return self.run(
            'axe.run().then(found => found.violations.map(v => v.id + ": " + v.nodes[0].html))'
        )

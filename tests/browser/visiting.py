"""The console in a tab, as a user sees it."""

from __future__ import annotations

from dataclasses import dataclass, field

from playwright.sync_api import ConsoleMessage, Page, Request, expect

from harness import RunningHub


@dataclass
class Console:
    """The console in a tab of its own. A complaint of the browser fails the test."""

    page: Page
    hub: RunningHub
    complaints: list[str] = field(default_factory=list)
    #: Beginnings of complaints that the test causes on purpose.
    expected: tuple[str, ...] = ()

    def listen(self) -> None:
        """Record complaints, and all requests to other hosts than the hub."""
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        self.page.on("request", self._requested)

    def open(self, place: str = "") -> None:
        """Load the console."""
        self.page.goto(f"{self.hub.url}/portal/{place}")

    def sign_in(self, consumer: str = "crm", secret: str | None = None) -> None:
        """Fill in the form with a consumer's credentials, and send it."""
        if secret is None:
            secret = self.hub.consumers[consumer]["client_secret"]
        self.page.get_by_label("Client id").fill(consumer)
        self.page.get_by_label("Client secret").fill(secret)
        self.press("Sign in")

    def press(self, name: str) -> None:
        """Press the button of this name."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def heading(self, name: str) -> None:
        """Wait for a heading that begins with this text."""
        expect(self.page.get_by_role("heading", name=name).first).to_be_visible()

    def badge(self, word: str) -> None:
        """Wait until the page's heading shows this state."""
        expect(self.page.locator("h1 .badge")).to_have_text(word)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(self.expected):
            self.complaints.append(f"{message.type}: {message.text}")

    def _requested(self, request: Request) -> None:
        if not request.url.startswith(f"{self.hub.url}/"):
            self.complaints.append(f"request to {request.url}")

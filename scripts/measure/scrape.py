"""Scrapes the server that is measured every second, as Prometheus does."""

import http.client
import threading
import time
import urllib.request

ADDRESS = "http://127.0.0.1:9601/metrics"


class Scraper:
    """Asks the default port, whoever has it at the moment, until the program ends."""

    def __init__(self) -> None:
        self.scrapes = 0
        self.bytes = 0
        threading.Thread(target=self._scrape, daemon=True).start()

    def _scrape(self) -> None:
        while True:
            try:
                with urllib.request.urlopen(ADDRESS, timeout=5) as answer:
                    self.bytes += len(answer.read())
                    self.scrapes += 1
            except (OSError, http.client.HTTPException):
                pass  # Between two servers, and of one that has no metrics.
            time.sleep(1)

"""How do tests see a page as a user does?"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from django.test import Client
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from tests.surfaces.site import chief, tasks_in
from tools import programs


@pytest.fixture(scope="session")
def browser() -> Iterator[Chrome]:
    """Start one browser without a window, from what is installed: nothing is downloaded."""
    options = ChromeOptions()
    options.binary_location = programs.find("chromium") or programs.find("google-chrome") or ""
    arguments = ["--headless=new", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1280,900"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # Chromium refuses its sandbox to root
    for argument in arguments:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options, ChromeService(programs.find("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have tasks in the database that a test is for, or else in the default one."""
    with tasks_in(request.getfixturevalue("alias") if "alias" in request.fixturenames else "default"):
        yield


@pytest.fixture
def boss(db: None) -> Client:
    """Return a client that may do everything."""
    client = Client()
    client.force_login(chief())
    return client

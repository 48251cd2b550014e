"""The labelling page in a browser, from a file: keys answer, answers stay, the button saves labels.jsonl."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

from tests.host.comfyui import find_browser
from training.evaluation.judge.accuracy import read_labels
from training.evaluation.judge.page import labelling_page
from training.evaluation.prompts import Entry


def write_page(folder, names):
    entries = []
    for number, name in enumerate(names):
        path = folder / "pictures" / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (32, 32), (80 * number, 0, 0)).save(path)
        entries.append(Entry(number + 1, path, "a cat is hugging a bear", "hugging", (), ("cat", "bear")))
    page = labelling_page(entries, ["hugging"] * len(names), folder, pictures=folder / "pictures")
    (folder / "label.html").write_text(page, encoding="utf-8")


@pytest.fixture
def page(tmp_path):
    """The page of three pictures, opened from disk."""
    write_page(tmp_path, ["0.png", "1.png", "2.png"])
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=find_browser(), args=flags)
        opened = browser.new_page()
        opened.goto((tmp_path / "label.html").as_uri())
        yield opened
        browser.close()


def test_keys_answer_and_the_button_saves(page, tmp_path):
    page.fill("#by", "ann")
    page.locator("#by").dispatch_event("change")
    page.locator("#by").blur()
    assert page.locator("#question").inner_text() == "Is the cat hugging the bear in this picture?"
    assert page.evaluate("document.getElementById('picture').naturalWidth") == 32
    page.keyboard.press("y")
    page.keyboard.press("n")
    assert page.locator("#place").inner_text() == "3 of 3, 2 answered"
    page.keyboard.press("ArrowLeft")
    assert page.locator("[data-answer=no]").get_attribute("aria-pressed") == "true"
    page.keyboard.press("u")  # an answer may be changed
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(tmp_path / "labels.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert [(line["picture"], line["answer"], line["by"]) for line in lines] == [
        ("0.png", "yes", "ann"),
        ("1.png", "unclear", "ann"),
    ]
    assert [label.answer for label in read_labels(tmp_path / "labels.jsonl", tmp_path / "pictures")] == [True, None]


def test_answers_stay_when_the_page_is_opened_again(page):
    page.keyboard.press("y")
    page.reload()
    assert page.locator("#place").inner_text() == "2 of 3, 1 answered"


def test_answers_stay_with_their_pictures_when_the_page_is_made_anew(page, tmp_path):
    page.keyboard.press("n")
    write_page(tmp_path, ["100% #1?.png", "0.png"])
    page.reload()
    page.wait_for_function("document.getElementById('picture').naturalWidth == 32")  # whatever is in its name
    assert page.locator("#place").inner_text() == "1 of 2, 1 answered"
    page.keyboard.press("y")
    with page.expect_download() as download:
        page.click("#save")
    lines = [json.loads(line) for line in download.value.path().read_text().splitlines()]
    assert [(line["picture"], line["answer"]) for line in lines] == [("100% #1?.png", "yes"), ("0.png", "no")]

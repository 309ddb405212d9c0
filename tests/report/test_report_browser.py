"""The page in a browser: it asks for nothing, complains of nothing and shows labels as text."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from page_parts import PageParts
from report_inputs import HOSTILE, make_tables, write_report

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--v=0",
    "--dump-dom",
)

pytestmark = pytest.mark.skipif(not BROWSER, reason="neither chromium nor google-chrome on PATH")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    tables = make_tables(dict.fromkeys(HOSTILE, "CL:0000000"))
    return write_report(tables, tmp_path_factory.mktemp("page"), title=HOSTILE[0])


def open_page(page: Path, profile: Path) -> tuple[str, list[str]]:
    """The document after its script ran, and the lines of its console."""
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, re.findall(r"CONSOLE.*", done.stderr)


def test_page_opens_without_a_word_on_the_console(page, tmp_path):
    document, console = open_page(page, tmp_path)
    assert console == []
    assert "<button>" in document  # its script ran: headers sort


def test_labels_do_not_become_elements_in_the_browser(page, tmp_path):
    document, _ = open_page(page, tmp_path)
    parts = PageParts(document)
    assert parts.tags.count("script") == 1
    assert "img" not in parts.tags
    assert HOSTILE[0] in parts.words
    assert "<title>owned</title>" not in document


@pytest.mark.parametrize(
    "intruder",
    [
        "<script>document.title='owned'</script>",
        "<img src='https://example.org/x.png'>",
        "<b style='color: red'>styled</b>",
    ],
)
def test_what_would_slip_through_is_stopped_and_reported(page, tmp_path, intruder):
    """The check above can fail, and the page's policy holds where escaping would not."""
    copy = tmp_path / "copy.html"
    copy.write_text(page.read_text().replace("<main>", f"<main>{intruder}"))
    document, console = open_page(copy, tmp_path / "profile")
    assert any("Content Security Policy" in line for line in console)
    assert "<title>owned</title>" not in document

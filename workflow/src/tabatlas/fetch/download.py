"""Bring a source file here and prove that it is the one that was meant."""

import http.client
import logging
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from tabatlas.errors import InputError, IntegrityError
from tabatlas.formats import describe_folder
from tabatlas.provenance import digest_file

logger = logging.getLogger(__name__)

TIMEOUT = 60  # seconds without a byte


def download_file(url: str, path: Path) -> None:
    """Download `url` to `path`. Raises `InputError` where the server does not give all of it."""
    logger.info("downloading %s", url)
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, open(path, "wb") as file:
            shutil.copyfileobj(answer, file, 1 << 20)
            expected = answer.headers.get("Content-Length")
    except (
        http.client.HTTPException,
        urllib.error.URLError,
        TimeoutError,
        ConnectionError,
    ) as error:
        raise InputError(
            f"{url}: cannot be fetched ({error}). Check the URL and try again."
        ) from None
    if expected is not None and path.stat().st_size != int(expected):
        raise InputError(f"{url}: {path.stat().st_size} of {expected} bytes came. Try again.")


def verify_file(path: Path, expected: str | None, source: str) -> str:
    """sha256 of the file; `IntegrityError` where it differs from the one that was given."""
    if path.is_dir():
        raise InputError(f"{source}: not an h5ad but {describe_folder(path)}")
    if not path.is_file():
        raise InputError(f"{source}: no such file. Check `path` in the dataset table.")
    found = digest_file(path)
    if expected is not None and found != expected:
        raise IntegrityError(
            f"{source}: sha256 is {found}, but the dataset table says {expected}. "
            "The file is damaged or another one; fetch it again or correct the table."
        )
    return found

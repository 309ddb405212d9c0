"""An S3 server over loopback, in a process of its own.

One in a thread would wait for the interpreter, which TileDB holds while it waits for the server.
"""

import contextlib
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

SERVE = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print("{}:{}".format(*server.get_host_and_port()), flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def serve_bucket(bucket: str) -> Iterator[dict[str, str]]:
    """Serve one bucket; gives the variables that workflow/docs/ingest.md names."""
    command, pipe = [sys.executable, "-c", SERVE], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as job:
        host = next(line.strip() for line in job.stdout if line.startswith("127."))
        wanted = urllib.request.Request(f"http://{host}/{bucket}", method="PUT")
        urllib.request.urlopen(wanted).close()
        yield {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "TILEDB_VFS_S3_ENDPOINT_OVERRIDE": host,
            "TILEDB_VFS_S3_SCHEME": "http",
            "TILEDB_VFS_S3_USE_VIRTUAL_ADDRESSING": "false",
        }
        job.stdin.close()

"""The command `tabatlas doctor`."""

import sys
from pathlib import Path
from typing import Annotated

from tabatlas.doctor.examination import examine, find_profile, judge, read_config
from tabatlas.doctor.findings import Site


def run(
    profile: Annotated[str | None, "profile of the run: a folder, or a name as Snakemake's"] = None,
    configfile: Annotated[Path | None, "configuration of the atlas"] = None,
) -> None:
    """Say in one line per check whether a run can begin here; exit code 1 where one fails."""
    site = Site(profile, find_profile(profile), read_config(configfile))
    lines = []
    for line in examine(site):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()  # some checks take their time
        lines.append(line)
    judge(lines)

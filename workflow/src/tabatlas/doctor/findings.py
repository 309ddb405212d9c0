"""What a check finds, and what it looks at."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tabatlas.doctor.partitions import Partition, read_partitions
from tabatlas.doctor.profile import Profile, Request
from tabatlas.provenance import PACKAGE

if TYPE_CHECKING:  # the command must also tell that pydantic is missing
    from tabatlas.config import Config

# The stages that a run trains, by the rules that do it.
TRAININGS = {
    "pretrain": "pretrain",
    "finetune": "finetune",
    "replicate": "finetune",
    "integrate": "integrate",
}


class Finding(NamedTuple):
    """One line: `ok`, `failed` or `not checked`, and what was found."""

    state: str
    text: str


def ok(text: str) -> Finding:
    """What is as it should be."""
    return Finding("ok", text)


def failed(text: str) -> Finding:
    """What would end a run; the text names the next step."""
    return Finding("failed", text)


def unknown(text: str) -> Finding:
    """What cannot be known here; the text says why."""
    return Finding("not checked", text)


def elsewhere(site: "Site", finding: Finding) -> Finding:
    """A failure of this machine, which is none of the run where jobs go to other ones."""
    return unknown(finding.text) if site.uses_slurm and finding.state == "failed" else finding


@dataclass(frozen=True)
class Site:
    """Where a run is to take place, and what it is to be."""

    named: str | None = None  # a profile that was asked for, whether or not it could be read
    profile: Profile | None = None
    config: "Config | None" = None

    @property
    def project(self) -> Path | None:
        """The checkout: that of this package, else the folder in which we are."""
        places = (PACKAGE.parents[2], Path.cwd())
        return next((one for one in places if (one / "envs" / "constraints.txt").is_file()), None)

    @property
    def results(self) -> Path:
        """Where a run writes: the folder of results, or the first above it that exists."""
        folder = Path.cwd() / "results" / (self.config.atlas if self.config else "")
        return next(one for one in (folder, *folder.parents) if one.is_dir())

    @property
    def devices(self) -> dict[str, str]:
        """`auto`, `cpu` or `cuda` by the stage that trains."""
        stages = dict.fromkeys(TRAININGS.values()) if self.config else ()
        return {stage: getattr(self.config, stage).device for stage in stages}

    @property
    def uses_slurm(self) -> bool:
        """Whether jobs go to a cluster."""
        return self.profile is not None and self.profile.executor == "slurm"

    @cached_property
    def requests(self) -> list[Request]:
        """What each rule that becomes a job asks for."""
        if self.profile is None or self.project is None:
            return []
        return self.profile.list_requests(self.project / "workflow" / "rules")

    @cached_property
    def partitions(self) -> dict[str, Partition] | None:
        """The cluster's partitions; None where no job goes to one, or Slurm does not answer."""
        return read_partitions() if self.uses_slurm else None

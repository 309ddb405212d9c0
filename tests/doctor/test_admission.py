"""`snakemake --profile` of a cluster that is not fit: one message, and nothing submitted."""

import pytest

from tabatlas.cli import main
from tabatlas.doctor.profile import read_profile
from tiny_atlas import Workdir

WRONG = {"slurm_partition": "gpus"}


@pytest.fixture
def submit(cluster, tmp_path, monkeypatch):
    """Run Snakemake in a folder of its own with the cluster's profile."""
    monkeypatch.setenv("PATH", f"{cluster.commands.folder}:/usr/bin:/bin")
    workdir = Workdir(tmp_path)

    def run(*options):
        profile = ("--profile", cluster.write())
        return workdir.snakemake(*profile, *workdir.configure(), *options, check=False)

    return run


def test_a_wrong_partition_ends_the_run_before_anything_is_submitted(cluster, submit, tmp_path):
    # Its one node is this machine.
    cluster.answer("sinfo", "cpu*|up|infinite|99000|gpu:1|idle|cpu1|127.0.0.1\n")
    cluster.profile["set-resources"] = {"pretrain": WRONG}
    done = submit()
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()
    assert last[-1].endswith("each says what to do. Nothing was submitted.")
    assert [line.split()[1] for line in last if line.startswith("failed ")] == ["partition"]
    assert "Traceback" not in done.stderr
    calls = [call for call in cluster.commands.calls if call.startswith("sbatch")]
    assert calls
    assert all(call.startswith("sbatch --test-only ") for call in calls)
    # The next run needs no --unlock.
    assert not list((tmp_path / ".snakemake" / "locks").glob("*"))


def test_options_of_the_command_line_count_as_they_do_for_snakemake(cluster):
    cluster.profile["set-resources"] = {"pretrain": WRONG}
    options = ("--set-resources", "pretrain:slurm_partition=cpu", "--default-resources", "nodes=2")
    profile = read_profile(["--profile", cluster.write(), *options])
    assert profile.of_rules["pretrain"]["slurm_partition"] == "cpu"
    assert "slurm_partition" not in profile.default
    assert profile.default["nodes"] == 2


def test_a_dry_run_asks_nothing(cluster, submit):
    cluster.profile["set-resources"] = {"pretrain": WRONG}
    assert submit("--dry-run").returncode == 0
    assert not [call for call in cluster.commands.calls if call.startswith("sbatch")]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--profile", "nowhere"], 2, "nowhere"),
        (["--configfile", "nowhere.yaml"], 2, "nowhere.yaml: not a readable YAML file"),
    ],
)
def test_wrong_usage_is_one_message(path_without_slurm, capsys, arguments, code, message):
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *arguments])
    assert ended.value.code == code
    assert message in capsys.readouterr().err


def test_each_check_is_a_line_and_a_failed_one_the_exit_code(cluster, capsys, tmp_path):
    cluster.profile["set-resources"] = {"pretrain": WRONG}
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--profile", cluster.write()])
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert all(
        line.startswith(("ok  ", "failed  ", "not checked  ")) for line in said.out.splitlines()
    )
    assert "no `gpus` for pretrain" in said.out
    assert "checks failed" in said.err

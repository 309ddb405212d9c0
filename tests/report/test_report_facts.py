"""Facts of the run: Snakemake's benchmark files."""

from report_inputs import BENCHMARK, write_benchmarks

from tabatlas.report.facts import find_versions, read_benchmarks, sum_jobs


def test_jobs_stand_in_the_order_of_the_data(tmp_path):
    write_benchmarks(tmp_path)
    stages = [job["stage"] for job in read_benchmarks(tmp_path)]
    assert stages == ["simulate", "qc", "qc", "split", "pack", "pretrain", "finetune"]


def test_what_snakemake_could_not_measure_is_not_zero(tmp_path):
    (tmp_path / "qc.tsv").write_text(f"{BENCHMARK}0.1\t0:00:00\t-\t-\t-\t-\t-\t-\t-\tNA\n")
    (job,) = read_benchmarks(tmp_path)
    assert (job["seconds"], job["peak_mib"], job["cpu_seconds"]) == (0.1, None, None)
    assert sum_jobs([job])[0]["peak_mib"] is None


def test_run_without_benchmarks_has_no_jobs(tmp_path):
    (tmp_path / "empty.tsv").write_text("")
    assert read_benchmarks(tmp_path) == []
    assert read_benchmarks(tmp_path / "absent") == []


def test_stage_sums_its_jobs(tmp_path):
    write_benchmarks(tmp_path)
    (qc,) = [stage for stage in sum_jobs(read_benchmarks(tmp_path)) if stage["stage"] == "qc"]
    assert qc["n_jobs"] == 2
    assert qc["seconds"] > qc["longest_seconds"]


def test_versions_name_python_and_the_packages():
    versions = find_versions()
    assert versions["python"].startswith("3.")
    assert versions["torch"] != ""

# in:  the experiment's obs
# out: train, validation and test of whole donors; folds of perturbations; the proof


rule split:
    input:
        manifest=f"{RESULTS}/ingest/manifest.json",
        settings=f"{RESULTS}/settings/split.json",
    output:
        cells=f"{RESULTS}/split/cells.parquet",
        perturbations=f"{RESULTS}/split/perturbations.parquet",
        proof=f"{RESULTS}/split/split.json",
    log:
        f"{LOGS}/split.log",
    benchmark:
        f"{BENCHMARKS}/split.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(2000, per_thousand_cells=1),
        runtime=minutes(30, per_million_cells=1),
    params:
        code=stage_digest("split"),
    shell:
        "logged {log:q} {resources.mem_mb} tabatlas split --manifest {input.manifest:q} --settings {input.settings:q}"
        " --cells {output.cells:q} --perturbations {output.perturbations:q}"
        " --proof {output.proof:q}"

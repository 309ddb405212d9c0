# in:  source h5ad
# out: filtered h5ad; a table with every cell, its metrics, its verdict and the reason


rule qc:
    input:
        counts=f"{RESULTS}/fetch/{{dataset}}.h5ad",
        settings=f"{RESULTS}/settings/qc.json",
    output:
        cells=f"{RESULTS}/qc/{{dataset}}.h5ad",
        table=f"{RESULTS}/qc/{{dataset}}.parquet",
        facts=f"{RESULTS}/qc/{{dataset}}.json",
    log:
        f"{LOGS}/qc/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/qc/{{dataset}}.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(2000, per_thousand_cells=500, most_cells=LARGEST_LIBRARY),
        runtime=minutes(120, per_million_cells=150),
    params:
        code=stage_digest("qc"),
    shell:
        "logged {log:q} {resources.mem_mb} tabatlas qc --counts {input.counts:q} --settings {input.settings:q}"
        " --cells {output.cells:q} --table {output.table:q} --facts {output.facts:q}"

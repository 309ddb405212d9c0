# in:  filtered h5ad
# out: all atlas genes in the atlas's order, integer counts, size factors, which were measured


rule normalize:
    input:
        cells=f"{RESULTS}/qc/{{dataset}}.h5ad",
        settings=f"{RESULTS}/settings/normalize.json",
        genes=gene_list(CONFIG.normalize.genes),
    output:
        normalized=f"{RESULTS}/normalize/{{dataset}}.h5ad",
        facts=f"{RESULTS}/normalize/{{dataset}}.json",
    log:
        f"{LOGS}/normalize/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/normalize/{{dataset}}.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(1500, per_thousand_cells=3),
        runtime=minutes(60, per_million_cells=15),
    params:
        code=stage_digest("normalize"),
    shell:
        "logged {log:q} {resources.mem_mb} tabatlas normalize --cells {input.cells:q} --settings {input.settings:q}"
        " --normalized {output.normalized:q} --facts {output.facts:q}"

# in:  experiment and split
# out: the training cache, derived: shuffled CSR shards and genes.parquet. The shards are no declared
#      output: those of an unchanged atlas are kept when the rule runs again.


rule pack:
    input:
        manifest=f"{RESULTS}/ingest/manifest.json",
        split=f"{RESULTS}/split/cells.parquet",
        settings=f"{RESULTS}/settings/pack.json",
        genes=gene_list(CONFIG.pack.genes),
    output:
        pack=f"{RESULTS}/pack/manifest.json",
    log:
        f"{LOGS}/pack.log",
    benchmark:
        f"{BENCHMARKS}/pack.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(4000, per_thousand_cells=2),
        runtime=minutes(240, per_million_cells=15),
    params:
        code=stage_digest("pack"),
        shards=shards_folder,
    shell:
        "logged {log:q} {resources.mem_mb} tabatlas pack --manifest {input.manifest:q} --split {input.split:q}"
        " --settings {input.settings:q} --shards {params.shards:q} --pack {output.pack:q}"

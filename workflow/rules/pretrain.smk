# in:  pack
# out: encoder + decoder, with genes.parquet and the architecture inside. Checkpoints are no
#      declared output: they must outlive a failure.


rule pretrain:
    input:
        pack=f"{RESULTS}/pack/manifest.json",
        settings=f"{RESULTS}/settings/pretrain.json",
    output:
        multiext(f"{RESULTS}/pretrain/", *MODEL_FILES),
    log:
        f"{LOGS}/pretrain.log",
    benchmark:
        f"{BENCHMARKS}/pretrain.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: CONFIG.pretrain.threads
    resources:
        **GPU,
        mem_mb=memory(8000, per_thousand_cells=1),
        runtime=1440,
    params:
        code=stage_digest("pretrain"),
        model=output_folder,
        checkpoints=f"{RESULTS}/checkpoints/pretrain",
    shell:
        "logged {log:q} {resources.mem_mb} {resources.launch} tabatlas pretrain --pack {input.pack:q} --settings {input.settings:q}"
        " --checkpoints {params.checkpoints:q} --model {params.model:q}"

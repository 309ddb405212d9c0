# in:  the pretrained encoder and the pack
# out: the embedding of every cell, the model that makes it, its scores beside other methods


rule integrate:
    input:
        encoder=multiext(f"{RESULTS}/pretrain/", *MODEL_FILES),
        pack=f"{RESULTS}/pack/manifest.json",
        manifest=f"{RESULTS}/ingest/manifest.json",
        settings=f"{RESULTS}/settings/integrate.json",
    output:
        multiext(f"{RESULTS}/integrate/", *MODEL_FILES),
        embedding=f"{RESULTS}/integrate/embedding.parquet",
        layout=f"{RESULTS}/integrate/layout.parquet",
    log:
        f"{LOGS}/integrate.log",
    benchmark:
        f"{BENCHMARKS}/integrate.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: CONFIG.integrate.threads
    resources:
        **GPU,
        mem_mb=memory(8000, per_thousand_cells=2),
        runtime=720,
    params:
        code=stage_digest("integrate"),
        encoder=input_folder("encoder"),
        model=output_folder,
        checkpoints=f"{RESULTS}/checkpoints/integrate",
    shell:
        "logged {log:q} {resources.mem_mb} {resources.launch} tabatlas integrate --encoder {params.encoder:q} --pack {input.pack:q}"
        " --manifest {input.manifest:q} --settings {input.settings:q}"
        " --checkpoints {params.checkpoints:q} --embedding {output.embedding:q}"
        " --layout {output.layout:q} --model {params.model:q}"

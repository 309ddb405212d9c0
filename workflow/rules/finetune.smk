# in:  encoder and labels
# out: a calibrated classifier, its scores and its predictions on the test


rule finetune:
    input:
        encoder=multiext(f"{RESULTS}/pretrain/", *MODEL_FILES),
        pack=f"{RESULTS}/pack/manifest.json",
        manifest=f"{RESULTS}/ingest/manifest.json",
        split=f"{RESULTS}/split/cells.parquet",
        proof=f"{RESULTS}/split/split.json",
        settings=f"{RESULTS}/settings/finetune.json",
    output:
        multiext(f"{RESULTS}/finetune/", *MODEL_FILES, *CLASSIFIER_FILES),
    log:
        f"{LOGS}/finetune.log",
    benchmark:
        f"{BENCHMARKS}/finetune.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: CONFIG.finetune.threads
    resources:
        **GPU,
        mem_mb=memory(8000, per_thousand_cells=2),
        runtime=720,
    params:
        code=stage_digest("finetune"),
        encoder=input_folder("encoder"),
        model=output_folder,
        checkpoints=f"{RESULTS}/checkpoints/finetune",
    shell:
        "logged {log:q} {resources.mem_mb} {resources.launch} tabatlas finetune --encoder {params.encoder:q} --pack {input.pack:q}"
        " --manifest {input.manifest:q} --split {input.split:q} --proof {input.proof:q}"
        " --settings {input.settings:q} --checkpoints {params.checkpoints:q}"
        " --model {params.model:q}"

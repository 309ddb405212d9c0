# in:  the classifier, the same classifier trained with other seeds, test cells, known markers
# out: masks and importances of a sample of the test cells, their means, and what tests them


rule replicate:
    input:
        encoder=multiext(f"{RESULTS}/pretrain/", *MODEL_FILES),
        pack=f"{RESULTS}/pack/manifest.json",
        training=f"{RESULTS}/settings/finetune.json",
    output:
        multiext(f"{RESULTS}/explain/replicates/{{seed}}/", *MODEL_FILES, "labels.json"),
    log:
        f"{LOGS}/explain/replicates/{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/explain/replicates/{{seed}}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: CONFIG.finetune.threads
    resources:
        **GPU,
        mem_mb=memory(8000, per_thousand_cells=1),
        runtime=720,
    params:
        code=stage_digest("explain"),
        encoder=input_folder("encoder"),
        model=output_folder,
        checkpoints=f"{RESULTS}/checkpoints/explain",
    shell:
        "logged {log:q} {resources.mem_mb} {resources.launch} tabatlas explain replicate --seed {wildcards.seed:q} --encoder {params.encoder:q}"
        " --pack {input.pack:q} --training {input.training:q}"
        " --checkpoints {params.checkpoints:q} --model {params.model:q}"


rule explain:
    input:
        classifier=multiext(f"{RESULTS}/finetune/", *MODEL_FILES, *CLASSIFIER_FILES),
        replicates=expand(
            f"{RESULTS}/explain/replicates/{{seed}}/model.safetensors",
            seed=REPLICATE_SEEDS,
        ),
        pack=f"{RESULTS}/pack/manifest.json",
        manifest=f"{RESULTS}/ingest/manifest.json",
        split=f"{RESULTS}/split/cells.parquet",
        markers=marker_file,
        training=f"{RESULTS}/settings/finetune.json",
        settings=f"{RESULTS}/settings/explain.json",
    output:
        masks=f"{RESULTS}/explain/masks.parquet",
        importances=f"{RESULTS}/explain/importances.parquet",
        types=f"{RESULTS}/explain/types.parquet",
        steps=f"{RESULTS}/explain/steps.parquet",
        scores=f"{RESULTS}/explain/scores.json",
    log:
        f"{LOGS}/explain/attribute.log",
    benchmark:
        f"{BENCHMARKS}/explain/attribute.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: CONFIG.finetune.threads
    resources:
        mem_mb=memory(8000, per_thousand_cells=2),
        runtime=minutes(240),
        gpu=1,
    params:
        code=stage_digest("explain"),
        classifier=input_folder("classifier"),
        replicates=replicate_folders,
    shell:
        "logged {log:q} {resources.mem_mb} tabatlas explain attribute --classifier {params.classifier:q}"
        " --replicates {params.replicates:q} --pack {input.pack:q} --manifest {input.manifest:q}"
        " --split {input.split:q} --markers {input.markers:q} --training {input.training:q}"
        " --settings {input.settings:q} --masks {output.masks:q}"
        " --importances {output.importances:q} --types {output.types:q} --steps {output.steps:q}"
        " --scores {output.scores:q}"

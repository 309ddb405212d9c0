# in:  the models, their genes, labels, settings and scores
# out: results/<atlas>/bundle/<name>@<version>/, whose version is a digest of what it holds


rule bundle:
    input:
        sources=for_all("fetch/{dataset}.json"),
        manifest=f"{RESULTS}/ingest/manifest.json",
        proof=f"{RESULTS}/split/split.json",
        encoder=multiext(f"{RESULTS}/pretrain/", *MODEL_FILES),
        classifier=multiext(f"{RESULTS}/finetune/", *MODEL_FILES, *CLASSIFIER_FILES),
        embedder=multiext(f"{RESULTS}/integrate/", *MODEL_FILES),
        effects=multiext(f"{RESULTS}/perturb/", *PERTURB_FILES),
        explanations=multiext(f"{RESULTS}/explain/", "scores.json", "types.parquet"),
        settings=expand(f"{RESULTS}/settings/{{stage}}.json", stage=MODEL_STAGES),
    output:
        facts=f"{RESULTS}/bundle/bundle.json",
    log:
        f"{LOGS}/bundle.log",
    benchmark:
        f"{BENCHMARKS}/bundle.tsv"
    group:
        "finish"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(2000, per_thousand_cells=0.5),
        runtime=minutes(15),
    params:
        code=stage_digest("bundle"),
        atlas=ATLAS,
        encoder=input_folder("encoder"),
        classifier=input_folder("classifier"),
        embedder=input_folder("embedder"),
        effects=input_folder("effects"),
        explanations=input_folder("explanations"),
        bundles=output_folder,
    shell:
        "logged {log:q} {resources.mem_mb} tabatlas bundle --atlas {params.atlas:q} --sources {input.sources:q}"
        " --manifest {input.manifest:q} --proof {input.proof:q} --encoder {params.encoder:q}"
        " --classifier {params.classifier:q} --embedder {params.embedder:q}"
        " --effects {params.effects:q} --explanations {params.explanations:q}"
        " --settings {input.settings:q}"
        " --bundles {params.bundles:q} --facts {output.facts:q}"

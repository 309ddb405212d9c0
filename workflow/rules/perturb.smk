# in:  encoder and perturbed cells: of the atlas's screens, and of those in perturb.datasets
# out: predicted effects, their scores beside baselines and a ceiling, and the heads


rule read_screen:
    input:
        source=screen_file,
        settings=f"{RESULTS}/settings/perturb.json",
        fetch=f"{RESULTS}/settings/fetch.json",
    output:
        cells=f"{RESULTS}/perturb/screens/{{screen}}.h5ad",
        facts=f"{RESULTS}/perturb/screens/{{screen}}.json",
    log:
        f"{LOGS}/perturb/screens/{{screen}}.log",
    benchmark:
        f"{BENCHMARKS}/perturb/screens/{{screen}}.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(1500, per_input_mb=3),
        runtime=minutes(60),
    params:
        code=stage_digest("perturb"),
    shell:
        "logged {log:q} {resources.mem_mb} tabatlas perturb read --screen {wildcards.screen:q} --settings {input.settings:q}"
        " --fetch {input.fetch:q} --source {input.source:q} --cells {output.cells:q}"
        " --facts {output.facts:q}"


rule perturb:
    input:
        encoder=multiext(f"{RESULTS}/pretrain/", *MODEL_FILES),
        pack=f"{RESULTS}/pack/manifest.json",
        manifest=f"{RESULTS}/ingest/manifest.json",
        split=f"{RESULTS}/split/cells.parquet",
        perturbations=f"{RESULTS}/split/perturbations.parquet",
        proof=f"{RESULTS}/split/split.json",
        screens=for_screens("perturb/screens/{screen}.h5ad"),
        facts=for_screens("perturb/screens/{screen}.json"),
        settings=f"{RESULTS}/settings/perturb.json",
    output:
        multiext(f"{RESULTS}/perturb/", *PERTURB_FILES),
    log:
        f"{LOGS}/perturb.log",
    benchmark:
        f"{BENCHMARKS}/perturb.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: CONFIG.perturb.threads
    resources:
        mem_mb=memory(4000, per_thousand_cells=1),
        runtime=minutes(240, per_million_cells=5),
        gpu=1,
    params:
        code=stage_digest("perturb"),
        encoder=input_folder("encoder"),
        model=output_folder,
    shell:
        "logged {log:q} {resources.mem_mb} tabatlas perturb predict --encoder {params.encoder:q} --pack {input.pack:q}"
        " --manifest {input.manifest:q} --split {input.split:q}"
        " --perturbations {input.perturbations:q} --proof {input.proof:q}"
        " --screens {input.screens:q} --facts {input.facts:q} --settings {input.settings:q}"
        " --model {params.model:q}"

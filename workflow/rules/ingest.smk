# in:  all normalised h5ad
# out: one SOMA experiment, sealed by manifest.json. The experiment itself is no declared output:
#      Snakemake deletes those before a rerun, and readers may still use it.


rule register:
    input:
        sources=for_all("normalize/{dataset}.h5ad"),
        facts=for_all("normalize/{dataset}.json"),
        settings=f"{RESULTS}/settings/ingest.json",
    output:
        registry=f"{RESULTS}/ingest/registry.json",
    log:
        f"{LOGS}/ingest/register.log",
    benchmark:
        f"{BENCHMARKS}/ingest/register.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(1500, per_thousand_cells=2),
        runtime=minutes(60),
    params:
        code=stage_digest("ingest"),
        store=soma_folder,
    shell:
        "logged {log:q} {resources.mem_mb} tabatlas ingest register --sources {input.sources:q} --facts {input.facts:q}"
        " --settings {input.settings:q} --store {params.store:q} --registry {output.registry:q}"


rule append:
    input:
        source=f"{RESULTS}/normalize/{{dataset}}.h5ad",
        facts=f"{RESULTS}/normalize/{{dataset}}.json",
        settings=f"{RESULTS}/settings/ingest.json",
        registry=f"{RESULTS}/ingest/registry.json",
    output:
        receipt=f"{RESULTS}/ingest/append/{{dataset}}.json",
    log:
        f"{LOGS}/ingest/append/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/ingest/append/{{dataset}}.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(2000, per_thousand_cells=5),
        runtime=minutes(120, per_million_cells=10),
    params:
        code=stage_digest("ingest"),
    shell:
        "logged {log:q} {resources.mem_mb} tabatlas ingest append --source {input.source:q} --facts {input.facts:q}"
        " --settings {input.settings:q} --registry {input.registry:q}"
        " --receipt {output.receipt:q}"


rule seal:
    input:
        registry=f"{RESULTS}/ingest/registry.json",
        receipts=for_all("ingest/append/{dataset}.json"),
    output:
        manifest=f"{RESULTS}/ingest/manifest.json",
    log:
        f"{LOGS}/ingest/seal.log",
    benchmark:
        f"{BENCHMARKS}/ingest/seal.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(4000, per_thousand_cells=1),
        runtime=minutes(240, per_million_cells=3),
    params:
        code=stage_digest("ingest"),
    shell:
        "logged {log:q} {resources.mem_mb} tabatlas ingest seal --registry {input.registry:q} --receipts {input.receipts:q}"
        " --manifest {output.manifest:q}"

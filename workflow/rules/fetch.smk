# in:  a row of the dataset table
# out: one verified source h5ad per dataset, and what was found in it


rule simulate:
    input:
        settings=f"{RESULTS}/settings/simulate.json",
    output:
        cells=f"{RESULTS}/simulate/{{name}}.h5ad",
        truth=f"{RESULTS}/simulate/{{name}}.truth.h5ad",
        markers=f"{RESULTS}/simulate/{{name}}.markers.tsv",
    log:
        f"{LOGS}/simulate/{{name}}.log",
    benchmark:
        f"{BENCHMARKS}/simulate/{{name}}.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(2000),
        runtime=minutes(10),
    params:
        code=stage_digest("simulate"),
    shell:
        "logged {log:q} {resources.mem_mb} tabatlas simulate --dataset {wildcards.name:q} --settings {input.settings:q}"
        " --cells {output.cells:q} --truth {output.truth:q} --markers {output.markers:q}"


rule fetch:
    input:
        source=source_file,
        row=f"{RESULTS}/settings/fetch/{{dataset}}.json",
        settings=f"{RESULTS}/settings/fetch.json",
    output:
        cells=f"{RESULTS}/fetch/{{dataset}}.h5ad",
        facts=f"{RESULTS}/fetch/{{dataset}}.json",
    log:
        f"{LOGS}/fetch/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/fetch/{{dataset}}.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(1500, per_input_mb=3),
        runtime=minutes(60),
    params:
        code=stage_digest("fetch"),
    shell:
        "logged {log:q} {resources.mem_mb} tabatlas fetch --row {input.row:q} --settings {input.settings:q}"
        " --source {input.source:q} --cells {output.cells:q} --facts {output.facts:q}"

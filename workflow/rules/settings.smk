# in:  the configuration
# out: results/<atlas>/settings/<stage>.json, one per stage and dataset, so that a changed knob
#      reruns its stage and what follows, nothing else


rule settings:
    output:
        f"{RESULTS}/settings/{{stage}}.json",
    log:
        f"{LOGS}/settings/{{stage}}.log",
    conda:
        "../../envs/cpu.yaml"
    params:
        json=stage_json,
    shell:
        "printf '%s\\n' {params.json:q} > {output:q} 2> {log:q}"


rule dataset_settings:
    output:
        f"{RESULTS}/settings/fetch/{{dataset}}.json",
    log:
        f"{LOGS}/settings/fetch/{{dataset}}.log",
    conda:
        "../../envs/cpu.yaml"
    params:
        json=dataset_json,
    shell:
        "printf '%s\\n' {params.json:q} > {output:q} 2> {log:q}"

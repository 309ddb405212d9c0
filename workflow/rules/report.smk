# in:  all scores and tables
# out: one self-contained page, its numbers, and the facts of this run


rule report:
    input:
        fetch=for_all("fetch/{dataset}.json"),
        qc=for_all("qc/{dataset}.json"),
        normalize=for_all("normalize/{dataset}.json"),
        manifest=f"{RESULTS}/ingest/manifest.json",
        split=f"{RESULTS}/split/split.json",
        pretrain=multiext(f"{RESULTS}/pretrain/", "metrics.jsonl", "scores.json"),
        finetune=multiext(f"{RESULTS}/finetune/", "metrics.jsonl", "scores.json"),
        integrate=multiext(f"{RESULTS}/integrate/", "scores.json", "layout.parquet"),
        perturb=f"{RESULTS}/perturb/scores.json",
        explain=f"{RESULTS}/explain/scores.json",
        bundle=f"{RESULTS}/bundle/bundle.json",
        settings=f"{RESULTS}/settings/report.json",
    output:
        html=f"{RESULTS}/report/index.html",
        json=f"{RESULTS}/report/report.json",
        run=f"{RESULTS}/run.json",
    log:
        f"{LOGS}/report.log",
    benchmark:
        f"{BENCHMARKS}/report.tsv"
    group:
        "finish"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=memory(2000, per_thousand_cells=0.5),
        runtime=minutes(15),
    params:
        code=stage_digest("report"),
        benchmarks=BENCHMARKS,
    shell:
        "logged {log:q} {resources.mem_mb} tabatlas report --fetch {input.fetch:q} --qc {input.qc:q}"
        " --normalize {input.normalize:q} --manifest {input.manifest:q} --split {input.split:q}"
        " --pretrain-metrics {input.pretrain[0]:q} --pretrain-scores {input.pretrain[1]:q}"
        " --finetune-metrics {input.finetune[0]:q} --finetune-scores {input.finetune[1]:q}"
        " --integrate-scores {input.integrate[0]:q} --integrate-layout {input.integrate[1]:q}"
        " --perturb-scores {input.perturb:q}"
        " --explain-scores {input.explain:q}"
        " --bundle {input.bundle:q} --benchmarks {params.benchmarks:q}"
        " --settings {input.settings:q} --html {output.html:q} --json {output.json:q}"
        " --run {output.run:q}"

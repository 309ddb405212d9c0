# tabatlas: the rules in the order of the data.
#
#   snakemake --cores all                                the demo atlas
#   snakemake --cores all --configfile my_atlas.yaml     your own


include: "workflow/rules/common.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/settings.smk"
include: "workflow/rules/fetch.smk"
include: "workflow/rules/qc.smk"
include: "workflow/rules/normalize.smk"
include: "workflow/rules/ingest.smk"
include: "workflow/rules/split.smk"
include: "workflow/rules/pack.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/finetune.smk"
include: "workflow/rules/integrate.smk"
include: "workflow/rules/perturb.smk"
include: "workflow/rules/explain.smk"
include: "workflow/rules/bundle.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        f"results/{ATLAS}/report/index.html",

"""Every column, layer and array name, spelled once.

obs columns are those of the CELLxGENE schema 7.1, QC columns those of scanpy.
"""

# stages, in the order of the data
STAGES = (
    "simulate",
    "fetch",
    "qc",
    "normalize",
    "ingest",
    "split",
    "pack",
    "pretrain",
    "finetune",
    "integrate",
    "perturb",
    "explain",
    "bundle",
    "report",
)
# What a model depends on; `report` only shows it.
MODEL_STAGES = STAGES[1:-1]

# obs, CELLxGENE schema 7.1
OBS_ID = "obs_id"  # dataset id + ":" + barcode: the stable name of a cell
BARCODE = "barcode"
DATASET_ID = "dataset_id"
COLLECTION_ID = "collection_id"
DONOR_ID = "donor_id"
DONOR = "donor"  # the person: collection and donor_id, which is unique only within a dataset
CELL_TYPE = "cell_type"
CELL_TYPE_ID = "cell_type_ontology_term_id"
ASSAY = "assay"
ASSAY_ID = "assay_ontology_term_id"
DISEASE = "disease"
DISEASE_ID = "disease_ontology_term_id"
TISSUE = "tissue"
TISSUE_ID = "tissue_ontology_term_id"
IS_PRIMARY_DATA = "is_primary_data"
PERTURBATION_ID = "genetic_perturbation_id"
PERTURBATION_STRATEGY = "genetic_perturbation_strategy"
CELL_LINE = "cell_line"  # of a screen outside the atlas; within it, the tissue

# obs, technical: cells that went through one library preparation together
BATCH = "batch"

# obs, quality control (scanpy)
N_GENES = "n_genes_by_counts"
TOTAL_COUNTS = "total_counts"
PCT_MT = "pct_counts_mt"
DOUBLET_SCORE = "doublet_score"  # 0: not scored

# the table of every cell, quality control and split
KEEP = "keep"
REASON = "reason"

# obs, normalization
TOTAL_N = "total_n"  # sum over all atlas genes, kept when a subset of the genes is loaded
SIZE_FACTOR = "size_factor"

# obs, what a model may learn from: targets, and covariates. A pack holds these columns.
LABELS = (CELL_TYPE, CELL_TYPE_ID)
CATEGORICAL = (DATASET_ID, DONOR, BATCH, ASSAY, DISEASE, TISSUE)
NUMERICAL = (TOTAL_N, N_GENES, PCT_MT, DOUBLET_SCORE)
COVARIATES = (*CATEGORICAL, *NUMERICAL)

# var
FEATURE_ID = "feature_id"
FEATURE_NAME = "feature_name"
FEATURE_TYPE = "feature_type"
FEATURE_TYPES = "feature_types"  # 10x: "Gene Expression", "Antibody Capture"
MEASURED = "measured"

# uns
ORGANISM = "organism"

# SOMA
JOINID = "soma_joinid"
MEASUREMENT = "RNA"
RAW_LAYER = "raw"
NORMALIZED_LAYER = "normalized"
PRESENCE = "feature_dataset_presence_matrix"

# split
SPLIT = "split"
PARTS = ("train", "validation", "test")

# values
UNKNOWN = "unknown"
ASSIGNED = "assigned"  # a cell that got a label, beside UNKNOWN and LOW_QUALITY
LOW_QUALITY = "low_quality"
STATUSES = (ASSIGNED, UNKNOWN, LOW_QUALITY)
NOT_APPLICABLE = "na"
PERTURBATION_DELIMITER = " || "  # CELLxGENE schema 7.1
CONTROL = "control"
NO_PERTURBATIONS = "no perturbations"
PROTEIN_CODING = "protein_coding"  # GENCODE

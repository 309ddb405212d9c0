# Snakemake runs this in an environment that it has made for `--sdm conda`, in the folder of the run.
# The environment's own `tabatlas` must be there, or that of the shell would take its place.
pip install --no-deps -e .

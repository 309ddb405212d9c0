"""Peers of `tabatlas annotate`, each in memory; run by annotate.py, in the peer's environment.

python annotate_peers.py PEER learn TAUGHT MODEL
python annotate_peers.py PEER predict QUERY MODEL OUT
"""

import pickle
import sys

import anndata as ad
import scanpy as sc


def read_scaled(path):
    """log1p(CP10k) of all genes."""
    adata = ad.read_h5ad(path)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    return adata


def learn_scanpy(adata):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=200).fit(adata.X, adata.obs["label"])


def predict_scanpy(adata, model):
    adata.obs["label"] = model.predict(adata.X)
    return adata


def learn_celltypist(adata):
    import celltypist

    return celltypist.train(adata, labels="label", n_jobs=2, check_expression=False)


def predict_celltypist(adata, model):
    import celltypist

    return celltypist.annotate(adata, model=model).to_adata()


METHODS = {
    "scanpy": (learn_scanpy, predict_scanpy),
    "celltypist": (learn_celltypist, predict_celltypist),
}


def main(peer, task, source, model, out=None):
    """Learn from labelled cells and keep the model, or label a query and write it."""
    learn, predict = METHODS[peer]
    adata = read_scaled(source)
    if task == "learn":
        with open(model, "wb") as file:
            pickle.dump(learn(adata), file)
    else:
        with open(model, "rb") as file:
            predict(adata, pickle.load(file)).write_h5ad(out)


main(*sys.argv[1:])

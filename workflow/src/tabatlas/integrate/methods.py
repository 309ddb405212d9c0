"""The embeddings that are compared, and what each is called."""

TABNET, PCA, RANDOM = "tabnet", "pca", "random"
HARMONY_PCA, HARMONY_TABNET = "harmony_pca", "harmony_tabnet"
TITLES = {
    TABNET: "TabNet",
    PCA: "PCA",
    HARMONY_PCA: "Harmony on PCA",
    HARMONY_TABNET: "Harmony on TabNet",
    RANDOM: "Random",
}

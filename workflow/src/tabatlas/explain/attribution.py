"""What several classifiers' masks say about the same cells, summed up minibatch by minibatch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tabatlas import names
from tabatlas.tabnet.classifier import Classifier
from tabatlas.tabnet.covariates import INPUT, Covariates
from tabatlas.tabnet.entries import Entries, GeneSets, look_up
from tabatlas.tabnet.importance import share_masks, weigh_steps

AGGREGATIONS = ("weighted", "plain")


class Answers(NamedTuple):
    """A minibatch of n cells, and the classes that k classifiers name."""

    x: Entries
    missing: GeneSets
    covariates: Covariates
    predicted_kn: Tensor


class Attribution(NamedTuple):
    """Of n cells and one classifier: the genes that each step selects, and no others.

    Summed over steps, `weighted` is `weigh_masks` and `plain` is `average_masks`, of genes only.
    `covariate_nq` is the weighted importance of the covariates that are inputs.
    """

    masks: list[Entries]
    weighted: list[Entries]
    covariate_nq: Tensor

    @property
    def plain(self) -> list[Entries]:
        """All steps alike."""
        return share_masks(self.masks)


class Attributor:
    """Runs all classifiers on a minibatch; the first one is the one that is explained.

    Answers come first, because a cell counts where all of them are right; then the masks of one
    classifier at a time, because they are large as long as masks are flat.
    """

    def __init__(self, classifiers: Sequence[Classifier]) -> None:
        self.classifiers = classifiers

    def __call__(self, x: Entries, missing: GeneSets, covariates: Covariates) -> Answers:
        """What every classifier answers."""
        found = [model.classify(x, missing, covariates)[0] for model in self.classifiers]
        predicted_kn = torch.stack([logits_nc.argmax(dim=1) for logits_nc in found])
        return Answers(x, missing, covariates, predicted_kn)

    @torch.inference_mode()
    def open_masks(self, number: int, answers: Answers) -> Attribution:
        """Masks of one classifier."""
        x, missing, covariates, _ = answers
        model, n_genes = self.classifiers[number], missing.member_mg.shape[1]
        _, encoding = model.classify(x, missing, covariates)
        selected = [mask.keep(mask.value > 0) for mask in encoding.masks]
        # Covariates that are inputs have masks after those of the genes.
        n_covariates = model.encoder.inputs.n_covariates
        weighted = weigh_steps(selected, encoding.decision_snd)
        tails = [one.keep(one.gene >= n_genes) for one in weighted]
        covariate_nq = sum(
            tail._replace(gene=tail.gene - n_genes).to_dense(n_covariates) for tail in tails
        )
        masks, weighted = (
            [one.keep(one.gene < n_genes) for one in parts] for parts in (selected, weighted)
        )
        return Attribution(masks, weighted, covariate_nq)


def name_inputs(classifier: Classifier) -> list[str]:
    """Names of the covariates that are inputs, in the order of their masks: numbers first."""
    inputs = [one for one in classifier.encoder.covariates if one.role == INPUT]
    return [one.name for one in sorted(inputs, key=lambda one: bool(one.levels))]


def list_masks(joinid_n: np.ndarray, masks: Sequence[Entries]) -> pd.DataFrame:
    """The selected genes of every cell and step, steps counted from 1."""
    tables = [
        pd.DataFrame(
            {
                names.JOINID: joinid_n[mask.rows().cpu().numpy()],
                "step": np.int8(step),
                "gene": mask.gene.cpu().numpy(),
                "mask": mask.value.cpu().numpy(),
            }
        )
        for step, mask in enumerate(masks, start=1)
    ]
    return pd.concat(tables).sort_values(names.JOINID, kind="stable")


def list_importances(joinid_n: np.ndarray, weighted: Entries, plain: Entries) -> pd.DataFrame:
    """Both importances of every gene that a cell selected in any step."""
    return pd.DataFrame(
        {
            names.JOINID: joinid_n[plain.rows().cpu().numpy()],
            "gene": plain.gene.cpu().numpy(),
            "weighted": weighted.value.cpu().numpy(),
            "plain": plain.value.cpu().numpy(),
        }
    )


@dataclass(frozen=True)
class TypeMeans:
    """Per type c, over its cells: importances, and the expression of genes, where measured.

    Importances (k classifiers, c, s, g) are means over the cells that all classifiers name rightly
    (`n_cells_c`), expression over all sampled cells (`n_sampled_c`). A gene that no cell measured
    has 0 in `measured_cg`. `selected_s` and `expressed_s` count genes per cell and step, the last
    entry over all steps; `n_measured` is the number of genes that a cell's dataset measured.
    `covariate_q` is the weighted importance of covariates, over all sampled cells.
    """

    n_sampled_c: np.ndarray
    n_cells_c: np.ndarray
    measured_cg: np.ndarray
    expression_cg: np.ndarray
    importance: dict[str, np.ndarray]
    accuracy_k: np.ndarray
    selected_s: np.ndarray
    expressed_s: np.ndarray
    n_measured: float
    covariate_q: np.ndarray

    def sum_steps(self, aggregation: str) -> np.ndarray:
        """Importance of every gene over all steps (k, c, g)."""
        return self.importance[aggregation].sum(axis=2)


class TypeSums:
    """Grows by minibatches into `TypeMeans`, which hold no masks of single cells.

    The type is the label, of cells that every classifier names rightly: the mask of a wrong answer
    explains the wrong type, and equal cells make the classifiers comparable.
    """

    def __init__(
        self, n_classifiers: int, n_classes: int, n_steps: int, n_genes: int, n_covariates: int
    ) -> None:
        shape = (n_classifiers, n_classes, n_steps, n_genes)
        self.sums = {name: np.zeros(shape) for name in AGGREGATIONS}
        self.seen_cg, self.measured_cg, self.expression_cg = np.zeros((3, n_classes, n_genes))
        self.n_sampled_c, self.n_cells_c = np.zeros((2, n_classes), dtype=np.int64)
        self.right_k = np.zeros(n_classifiers)
        self.selected_s, self.expressed_s = np.zeros((2, n_steps + 1))
        self.covariate_q = np.zeros(n_covariates)

    def add_cells(self, label_n: Tensor, answers: Answers) -> Tensor:
        """Add a minibatch; returns which cells all classifiers name rightly (n,)."""
        right_kn = answers.predicted_kn == label_n
        agreed_n = right_kn.all(dim=0)
        self.right_k += right_kn.sum(dim=1).cpu().numpy()
        add_entries(self.expression_cg, label_n, answers.x)
        n_sampled_c, seen_cg = self.count_measured(label_n, answers.missing)
        self.n_sampled_c += n_sampled_c
        self.seen_cg += seen_cg
        set_n, member_mg = answers.missing
        agreed = GeneSets(set_n[agreed_n], member_mg)
        n_cells_c, measured_cg = self.count_measured(label_n[agreed_n], agreed)
        self.n_cells_c += n_cells_c
        self.measured_cg += measured_cg
        return agreed_n

    def count_measured(self, label_n: Tensor, missing: GeneSets) -> tuple[np.ndarray, np.ndarray]:
        """Cells of each class (c,), and how many of them measured a gene (c, g)."""
        n_classes, n_sets = len(self.n_cells_c), len(missing.member_mg)
        pair_n = label_n * n_sets + missing.set_n
        n_cells_cm = pair_n.bincount(minlength=n_classes * n_sets).view(n_classes, n_sets)
        measured_cg = n_cells_cm.double() @ (~missing.member_mg).double()
        return n_cells_cm.sum(1).cpu().numpy(), measured_cg.cpu().numpy()

    def add_masks(self, number: int, label_n: Tensor, agreed_n: Tensor, found: Attribution) -> None:
        """Add what one classifier looks at in the cells that all classifiers name rightly."""
        label_n = label_n[agreed_n]
        for name, parts in zip(AGGREGATIONS, (found.weighted, found.plain), strict=True):
            for step, part in enumerate(parts):
                add_entries(self.sums[name][number, :, step], label_n, part.take(agreed_n))

    def count_selected(self, found: Attribution, whole: Entries, x: Entries) -> None:
        """Count the genes that each step selects, and `whole`, those of all; weigh covariates."""
        self.covariate_q += found.covariate_nq.sum(0, dtype=torch.float64).cpu().numpy()
        for number, selected in enumerate([*found.masks, whole]):
            expressed = look_up(x, selected.indptr, selected.gene) > 0
            self.selected_s[number] += len(expressed)
            self.expressed_s[number] += expressed.sum().item()

    def average(self) -> TypeMeans:
        """Means over the cells that measured a gene: an unmeasured gene is not a zero."""
        n_cells = max(int(self.n_sampled_c.sum()), 1)
        measured_csg = np.maximum(self.measured_cg, 1)[:, None]
        return TypeMeans(
            self.n_sampled_c,
            self.n_cells_c,
            self.measured_cg,
            self.average_expression(),
            {name: sums / measured_csg for name, sums in self.sums.items()},
            self.right_k / n_cells,
            self.selected_s / n_cells,
            self.expressed_s / n_cells,
            float(self.seen_cg.sum() / n_cells),
            self.covariate_q / n_cells,
        )

    def average_expression(self) -> np.ndarray:
        """Mean expression (c, g); a type that was predicted but not sampled gets that of all."""
        whole_g = self.expression_cg.sum(axis=0) / np.maximum(self.seen_cg.sum(axis=0), 1)
        own_cg = self.expression_cg / np.maximum(self.seen_cg, 1)
        return np.where(self.n_sampled_c[:, None] > 0, own_cg, whole_g)


def add_entries(sum_cg: np.ndarray, label_n: Tensor, entries: Entries) -> None:
    """Add the entries of cells to the sums of their classes, in float64 and in their order."""
    place = (label_n[entries.rows()].cpu(), entries.gene.long().cpu())
    torch.from_numpy(sum_cg).index_put_(place, entries.value.double().cpu(), accumulate=True)

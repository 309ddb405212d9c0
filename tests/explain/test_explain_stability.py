import numpy as np
import pytest

from tabatlas.explain.attribution import TypeMeans
from tabatlas.explain.settings import ExplainSettings
from tabatlas.explain.stability import find_own, find_stable, list_tops, score_stability
from tabatlas.explain.summary import draw_heatmaps, find_own_genes, summarize_types


@pytest.fixture
def usable_cg():
    usable_cg = np.ones((3, 400), dtype=bool)
    usable_cg[:, :100] = False
    return usable_cg


def test_equal_classifiers_agree_wholly_and_types_of_their_own_do_not(usable_cg):
    importance_cg = np.random.default_rng(0).random((3, 400))
    for one in score_stability(np.stack([importance_cg] * 3), usable_cg, 20):
        assert one["jaccard"] == pytest.approx(1)
        assert one["spearman"] == pytest.approx(1)
        assert one["n_stable"] == 20
        assert one["jaccard_other_types"] < 0.15


def test_random_importances_agree_as_much_as_chance_says(usable_cg):
    found = score_stability(np.random.default_rng(1).random((12, 3, 400)), usable_cg, 20)
    for one in found:
        assert one["jaccard"] == pytest.approx(one["jaccard_chance"], abs=0.015)
        assert abs(one["spearman"]) < one["spearman_chance"]
        assert one["n_stable"] == 0


def test_genes_that_every_type_looks_at_say_nothing_about_a_type(usable_cg):
    importance_kcg = np.tile(np.random.default_rng(0).random(400), (3, 3, 1))
    found = score_stability(importance_kcg, usable_cg, 20)[0]
    assert found["jaccard"] == found["jaccard_other_types"] == 1


def test_genes_that_are_not_usable_are_never_compared(usable_cg):
    importance_cg = np.random.default_rng(0).random((3, 400))
    importance_cg[:, :100] += 10
    assert all(tops.min() >= 100 for tops in list_tops(importance_cg, usable_cg, 20))


def test_a_type_without_genes_has_no_stability(usable_cg):
    usable_cg[1] = False
    found = score_stability(np.random.default_rng(0).random((2, 3, 400)), usable_cg, 20)
    assert found[1] is None
    assert found[0] is not None


def test_a_stable_gene_is_one_of_every_classifiers_first():
    tops = [np.array([5, 3, 8]), np.array([8, 5, 1]), np.array([5, 9, 8])]
    assert find_stable(tops).tolist() == [5, 8]


def make_means(importance_kcg, measured_cg):
    """Means of one step, of a type's genes that are expressed where they were measured."""
    n_types, n_genes = measured_cg.shape
    return TypeMeans(
        n_sampled_c=np.full(n_types, 9),
        n_cells_c=np.full(n_types, 9),
        measured_cg=9 * measured_cg,
        expression_cg=1.0 * measured_cg,
        importance=dict.fromkeys(("weighted", "plain"), importance_kcg[:, :, None]),
        accuracy_k=np.ones(len(importance_kcg)),
        selected_s=np.ones(2),
        expressed_s=np.ones(2),
        n_measured=float(n_genes),
        covariate_q=np.zeros(0),
    )


def summarize(importance_kcg, usable_cg, **knobs):
    chosen = ExplainSettings(**knobs)
    means = make_means(importance_kcg, usable_cg)
    n_types, n_genes = usable_cg.shape
    classes = [{"label": f"type{one}", "ontology_term_id": "unknown"} for one in range(n_types)]
    symbols = np.array([f"GENE{number}" for number in range(n_genes)])
    own, shared = find_own_genes(means, chosen.n_top)
    rows = summarize_types(means, classes, symbols, own, [None] * n_types, chosen)
    return rows, shared, draw_heatmaps(means, rows, symbols, own, chosen)


@pytest.mark.parametrize("seed", range(20))
def test_of_random_importances_nothing_is_drawn(seed):
    """20 of 60 genes: chance alone is a Jaccard index of 0.2, far above `min_stability`."""
    importance_kcg = np.random.default_rng(seed).random((3, 6, 60))
    rows, _, heatmaps = summarize(importance_kcg, np.ones((6, 60), bool))
    assert np.mean([row["stability"]["weighted"]["jaccard"] for row in rows]) > 0.15
    assert not any(row["stable"] or row["stable_genes"] for row in rows)
    assert heatmaps["types"]["columns"] == heatmaps["types"]["rows"] == []


def test_genes_of_every_type_are_no_finding_of_any(usable_cg):
    importance_kcg = np.tile(np.random.default_rng(0).random(400), (3, 3, 1))
    rows, shared, heatmaps = summarize(importance_kcg, usable_cg)
    assert all(row["stability"]["weighted"]["jaccard"] == 1 for row in rows)
    assert not any(row["stable"] for row in rows)
    assert heatmaps["types"]["columns"] == []
    assert len(shared) == 20


def test_a_type_is_drawn_with_the_genes_that_are_its_own(usable_cg):
    """Genes 110 to 115 are looked at in every type, 20 others in one type each."""
    importance_kcg = np.random.default_rng(0).random((3, 3, 400)) / 10
    importance_kcg[:, :, 110:116] += 3
    for one in range(3):
        importance_kcg[:, one, 200 + 20 * one : 214 + 20 * one] += 2
    rows, shared, heatmaps = summarize(importance_kcg, usable_cg, heatmap_genes=50)
    assert shared.tolist() == list(range(110, 116))
    for one, row in enumerate(rows):
        assert row["stable"]
        wanted = {f"GENE{number}" for number in range(200 + 20 * one, 214 + 20 * one)}
        assert set(row["stable_genes"]) == wanted
    assert len(heatmaps["types"]["columns"]) == 42
    assert np.shape(heatmaps["types"]["values"]) == (3, 42)
    assert np.shape(heatmaps["steps"]["values"]) == (1, 42)


def test_a_stable_gene_that_other_types_look_at_more_is_not_its_own(usable_cg):
    importance_kcg = np.zeros((2, 3, 400))
    importance_kcg[:, 0, 150], importance_kcg[:, 1:, 150] = 0.1, 0.4
    stable = [np.array([150]), np.array([], dtype=int), np.array([], dtype=int)]
    own, shared = find_own(stable, importance_kcg, usable_cg)
    assert own[0].tolist() == []
    assert shared.tolist() == []


def test_chance_of_a_mean_correlation_holds_95_percent_of_random_rankings():
    rng = np.random.default_rng(0)
    found = [
        score_stability(rng.random((4, 1, 30)), np.ones((1, 30), bool), 5)[0] for _ in range(400)
    ]
    inside = np.mean([abs(one["spearman"]) < one["spearman_chance"] for one in found])
    assert 0.92 < inside < 0.98

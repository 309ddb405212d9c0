"""Every method's scores on the screens of tests/real/norman.yaml, as one line of JSON.

    python tests/benchmarks/perturb.py --data DIR [--folder DIR]

`--data` is the folder of real cells; the workflow runs in `--folder`, or in one that is removed.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from workflow import ROOT, link_data, print_line, run_workflow

from tabatlas.provenance import read_json

CONFIG = ROOT / "tests" / "real" / "norman.yaml"
TARGET = Path("results") / "norman" / "perturb" / "scores.json"
PEERS = {
    "GEARS": "not run: not part of this environment",
    "cell-eval": "not run: not part of this environment",
}


def main() -> None:
    """Build the scores and print them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the real cells")
    parser.add_argument("--folder", type=Path, help="where the workflow runs; kept")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, print_line() as found:
        folder = given.folder or Path(temporary)
        link_data(given.data.resolve(), folder)
        run_workflow(folder, CONFIG, [TARGET])
        sets = [*list_sets(read_json(folder / TARGET))]
        found |= {"benchmark": "perturb", "sets": sets, "peers": PEERS}


def list_sets(scores: dict[str, Any]) -> Any:
    """Per test set: what it is, and each method's metrics, raw and rescaled, or why it has none."""
    for screen in scores["screens"]:
        for one in screen["sets"]:
            methods = {
                name: {metric: describe_score(score) for metric, score in values.items()}
                for name, values in one["methods"].items()
            }
            methods |= {name: f"not run: {reason}" for name, reason in one["not_run"].items()}
            yield {
                "screen": screen["screen"],
                "cell_line": screen["cell_line"],
                "set": one["name"],
                "n_perturbations": one["n_perturbations"],
                "unable": one["unable"],
                "best": one["best"],
                "baseline": one["baseline"],
                "head": one["head"],
                "own": one["own"],
                "methods": methods,
            }


def describe_score(score: dict[str, Any] | None) -> dict[str, float | None] | None:
    """A score and its place between the constant and the ceiling."""
    if score is None:
        return None
    scale = score["rescaled"]
    return {"value": score["value"], "rescaled": scale and scale["value"]}


if __name__ == "__main__":
    main()

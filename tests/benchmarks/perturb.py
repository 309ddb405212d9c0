"""Every method's scores on the screens of tests/real/norman.yaml, as one line of JSON.

    python tests/benchmarks/perturb.py --data DIR [--folder DIR]

`--data` is the folder of real cells; the workflow runs in `--folder`, or in one that is removed.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "tests" / "real" / "norman.yaml"
TARGET = "results/norman/perturb/scores.json"


def main() -> None:
    """Build the scores and print them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the real cells")
    parser.add_argument("--folder", type=Path, help="where the workflow runs; kept")
    arguments = parser.parse_args()
    made = tempfile.TemporaryDirectory() if arguments.folder is None else None
    with made or contextlib.nullcontext(arguments.folder) as folder:
        scores = build_scores(arguments.data.resolve(), Path(folder))
    print(json.dumps({"benchmark": "perturb", "sets": [*list_sets(scores)]}, sort_keys=True))


def build_scores(data: Path, folder: Path) -> dict[str, Any]:
    """Run the workflow up to the scores; its output goes to stderr."""
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "data"
    if not link.exists():
        link.symlink_to(data)
    command = [sys.executable, "-m", "snakemake", "-s", ROOT / "Snakefile", "--cores", "2", TARGET]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow" / "src")}
    subprocess.run(
        [*command, "--configfile", CONFIG],
        cwd=folder,
        env=environment,
        stdout=sys.stderr,
        check=True,
    )
    return json.loads((folder / TARGET).read_text())


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
                "head": one["head"],
                "own": one["own"],
                "methods": methods,
            }


def describe_score(score: dict[str, Any] | None) -> dict[str, float | None] | None:
    """A score and its place between mean and ceiling."""
    if score is None:
        return None
    scale = score["rescaled"]
    return {"value": score["value"], "rescaled": scale and scale["value"]}


if __name__ == "__main__":
    main()

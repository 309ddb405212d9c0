"""Put everything that makes up a model into one folder that can prove itself."""

import importlib.metadata
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

from tabatlas import names
from tabatlas.bundle.card import write_card
from tabatlas.bundle.settings import BundleSettings
from tabatlas.bundle.verify import ABOUT, ATLAS_GENES, CARD, FORMAT, SUMS, name_version
from tabatlas.errors import IntegrityError
from tabatlas.experiment import open_experiment
from tabatlas.provenance import (
    digest_file,
    digest_files,
    read_json,
    stage_digest,
    sync_folder,
    write_json,
    write_text,
)
from tabatlas.tables import write_table
from tabatlas.train.model import CONFIG, GENES, WEIGHTS, read_model
from tabatlas.train.tensors import read_tensors, write_tensors

logger = logging.getLogger(__name__)

# Settings that name a place, and those that may name a file whose content counts.
PLACES, TABLES = {"uri", "path"}, {"genes", "markers"}
SCORES = "scores.json"
SCORED = ("pretrain", "finetune", "integrate", "perturb", "explain")
PACKAGES = ("anndata", "numpy", "pandas", "scanpy", "scikit-learn", "scipy", "tiledbsoma", "torch")


def run(
    atlas: Annotated[str, "name of the atlas"],
    sources: Annotated[list[Path], "fetch/DATASET.json of every dataset"],
    manifest: Annotated[Path, "ingest/manifest.json"],
    proof: Annotated[Path, "split/split.json"],
    encoder: Annotated[Path, "folder of the pretrained encoder and decoder"],
    classifier: Annotated[Path, "folder of the classifier"],
    embedder: Annotated[Path, "folder of the integration"],
    effects: Annotated[Path, "folder of the predicted perturbations"],
    explanations: Annotated[Path, "folder of the explanations"],
    settings: Annotated[list[Path], "settings of every stage"],
    bundles: Annotated[Path, "folder in which NAME@VERSION is made"],
    facts: Annotated[Path, "JSON to write: name, version, files"],
) -> None:
    """Write NAME@VERSION: weights, genes, labels, calibration, scores, card, hashes."""
    knobs = {path.stem: read_json(path) for path in settings}
    chosen = BundleSettings.parse(knobs["bundle"], "settings/bundle.json")
    bundles.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=bundles, prefix=".bundle.") as temporary:
        folder = Path(temporary)
        copy_parts(encoder, classifier, embedder, effects, folder)
        shutil.copyfile(explanations / "types.parquet", folder / "importances.parquet")
        write_atlas_genes(manifest, folder)
        metrics = describe_atlas(manifest, proof)
        scored = (encoder, classifier, embedder, effects, explanations)
        metrics |= dict(zip(SCORED, (read_json(one / SCORES) for one in scored), strict=True))
        metrics["sources"] = dict(map(name_source, sources))
        write_json(metrics, folder / "metrics.json")
        for stage, values in knobs.items():
            write_json(name_content(values), folder / "settings" / f"{stage}.json")
        code = {stage: stage_digest(stage) for stage in names.MODEL_STAGES}
        versions = find_versions()
        write_json({"stages": code, "versions": versions}, folder / "code.json")
        name, version = chosen.name or atlas, name_version(chosen.version, digest_files(folder))
        write_json(describe_bundle(name, version, chosen), folder / ABOUT)
        card = write_card(f"{name}@{version}", chosen, read_json(folder / CONFIG), metrics)
        write_text(card, folder / CARD)
        files = digest_files(folder)
        write_text("".join(f"{sha}  {path}\n" for path, sha in files.items()), folder / SUMS)
        place = put_in_place(folder, bundles / f"{name}@{version}")
    logger.info("%s", place)
    about = {"name": name, "version": version, "path": place.name, "files": files}
    write_json(about | {"stages": code, "settings": knobs, "versions": versions}, facts)


def copy_parts(
    encoder: Path, classifier: Path, embedder: Path, effects: Path, folder: Path
) -> None:
    """Join the weights into one file of named parts; copy what describes them."""
    pretrained = read_model(encoder)
    tensors = pretrained.tensors | read_tensors(effects / WEIGHTS)[0]
    for stage, place in (("finetune", classifier), ("integrate", embedder)):
        trained = read_model(place)
        if trained.about["encoder"] != pretrained.digest:
            raise IntegrityError(f"{place}: not trained from {encoder}. Run {stage} again.")
        tensors |= trained.tensors
    write_tensors(tensors, {}, folder / WEIGHTS)
    for name in (CONFIG, GENES, "labels.json", "calibration.json"):
        shutil.copyfile(classifier / name, folder / name)
    shutil.copyfile(embedder / CONFIG, folder / "embedding.json")
    shutil.copyfile(effects / "heads.json", folder / "perturb.json")


def write_atlas_genes(manifest: Path, folder: Path) -> None:
    """Write all genes of the atlas: a query's counts are scaled by its sum over these."""
    with open_experiment(manifest) as experiment:
        genes = experiment.read_var()
    write_table(genes[[names.FEATURE_ID, names.FEATURE_NAME]], folder / ATLAS_GENES)


def describe_bundle(name: str, version: str, chosen: BundleSettings) -> dict[str, Any]:
    """`bundle.json`: what a program must know before it reads the rest."""
    about = {"format": FORMAT, "name": name, "version": version}
    return about | {"license": chosen.license, "intended_use": chosen.intended_use}


def describe_atlas(manifest: Path, proof: Path) -> dict[str, Any]:
    """What was learned from: of the experiment its content, never its place or time."""
    experiment = read_json(manifest)
    content = {key: value for key, value in experiment.items() if key not in ("uri", "timestamp")}
    return {"atlas": content, "split": read_json(proof)}


def name_content(knobs: Any) -> Any:
    """Settings without places: a list of genes or markers by its digest, no path and no URI."""
    if isinstance(knobs, list):
        return [name_content(one) for one in knobs]
    if not isinstance(knobs, dict):
        return knobs
    named = {key: name_content(value) for key, value in knobs.items() if key not in PLACES}
    for key in TABLES & named.keys():
        if named[key] is not None and Path(named[key]).is_file():
            named[key] = f"sha256:{digest_file(Path(named[key]))}"
    return named


def find_versions() -> dict[str, str]:
    """Installed versions of what computes."""
    return {package: importlib.metadata.version(package) for package in PACKAGES}


def name_source(facts: Path) -> tuple[str, str]:
    """Dataset id and sha256 of the file it came from."""
    found = read_json(facts)
    return found["dataset_id"], found["sha256"]


def put_in_place(folder: Path, place: Path) -> Path:
    """Move a finished bundle to its name; one of the same content may stand there already."""
    if place.exists():
        if digest_files(place) != digest_files(folder):
            raise IntegrityError(
                f"{place}: its files are not those that its version names. Delete it and bundle "
                "again."
            )
        return place
    folder.chmod(0o755)  # a temporary folder is private
    folder.rename(place)
    sync_folder(place.parent)
    return place

"""What is predicted from what: test sets of a unit, each with the singles that may be known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tabatlas.perturb.screens import ATLAS, Unit, split_targets
from tabatlas.split.perturbations import HELD_OUT_FOLD

SINGLES, DOUBLES, DOUBLES_UNSEEN = "singles", "doubles", "doubles_unseen"
LEAST_TRAIN = 3  # singles; fewer give no mean, let alone a ridge


@dataclass(frozen=True)
class Part:
    """Perturbations to predict, and the singles that are known to whoever predicts them."""

    train: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class PerturbationSet:
    """Parts whose predictions are scored together."""

    name: str
    parts: tuple[Part, ...]

    @property
    def test(self) -> list[str]:
        """All tested perturbations, in the order of the parts."""
        return [one for part in self.parts for one in part.test]


def make_sets(unit: Unit, measured: Sequence[str]) -> list[PerturbationSet]:
    """Test sets of the perturbations that have enough cells; empty ones are left out.

    Singles are predicted by a fit without their fold. Of a screen in the atlas only fold 0 is
    tested: the encoder saw the cells of the others. Doubles are predicted from all singles, and
    those of which a single is unknown stand apart.
    """
    singles = [one for one in measured if len(split_targets(one)) == 1]
    doubles = [one for one in measured if len(split_targets(one)) == 2]
    tested = [HELD_OUT_FOLD] if unit.origin == ATLAS else sorted(set(unit.folds.values()))
    folds = (part_singles(singles, unit.folds, fold) for fold in tested)
    known = set(singles)
    seen = tuple(one for one in doubles if known.issuperset(split_targets(one)))
    unseen = tuple(one for one in doubles if one not in seen)
    sets = [
        PerturbationSet(SINGLES, tuple(part for part in folds if part.test)),
        PerturbationSet(DOUBLES, (Part(tuple(singles), seen),)),
        PerturbationSet(DOUBLES_UNSEEN, (Part(tuple(singles), unseen),)),
    ]
    enough = min((len(part.train) for one in sets for part in one.parts), default=0) >= LEAST_TRAIN
    return [one for one in sets if one.test and enough]


def part_singles(singles: Sequence[str], folds: Mapping[str, int], fold: int) -> Part:
    """The singles of a fold, and all others."""
    train = tuple(one for one in singles if folds[one] != fold)
    return Part(train, tuple(one for one in singles if folds[one] == fold))

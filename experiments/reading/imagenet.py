"""ImageNet's 1,000 classes: what the data sets that are made from it know of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import experiments.networks.torchvision_beside_torch  # noqa: F401 (before torchvision)
from experiments.reading.sources import Absent
from methods.contract import InvalidInput

N_CLASSES = 1000
CLASS_INDEX = "imagenet_meta/imagenet_class_index.json"  # below the data root
CLASS_INDEX_ADDRESS = "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json"

# superclass -> WordNet id of a subclass -> its number among ImageNet's classes
MIXED_10 = {
    "dog": {
        "n02085620": 151,
        "n02085782": 152,
        "n02085936": 153,
        "n02086079": 154,
        "n02086240": 155,
        "n02086646": 156,
    },
    "bird": {
        "n01514668": 7,
        "n01514859": 8,
        "n01518878": 9,
        "n01530575": 10,
        "n01531178": 11,
        "n01532829": 12,
    },
    "insect": {
        "n02165105": 300,
        "n02165456": 301,
        "n02167151": 302,
        "n02168699": 303,
        "n02169497": 304,
        "n02172182": 305,
    },
    "monkey": {
        "n02484975": 370,
        "n02486261": 371,
        "n02486410": 372,
        "n02487347": 373,
        "n02488291": 374,
        "n02488702": 375,
    },
    "car": {
        "n02701002": 407,
        "n02814533": 436,
        "n02930766": 468,
        "n03100240": 511,
        "n03594945": 609,
        "n03670208": 627,
    },
    "feline": {
        "n02125311": 286,
        "n02127052": 287,
        "n02128385": 288,
        "n02128757": 289,
        "n02128925": 290,
        "n02129165": 291,
    },
    "truck": {
        "n03345487": 555,
        "n03417042": 569,
        "n03796401": 675,
        "n03930630": 717,
        "n03977966": 734,
        "n04461696": 864,
    },
    "fruit": {
        "n07742313": 948,
        "n11879895": 984,
        "n12144580": 987,
        "n12267677": 988,
        "n12620546": 989,
        "n12768682": 990,
    },
    "fungus": {
        "n12985857": 991,
        "n12998815": 992,
        "n13037406": 993,
        "n13040303": 994,
        "n13044778": 995,
        "n13052670": 996,
    },
    "boat": {
        "n02951358": 472,
        "n03344393": 554,
        "n03447447": 576,
        "n03662601": 625,
        "n04273569": 814,
        "n04612504": 914,
    },
}
TINY_IMAGENET = {
    "dog": {
        "n02106662": 235,
        "n02099712": 208,
        "n02099601": 207,
        "n02094433": 187,
        "n02085620": 151,
        "n02113799": 267,
    },
    "feline": {
        "n02124075": 285,
        "n02123045": 281,
        "n02125311": 286,
        "n02123394": 283,
        "n02129165": 291,
    },
    "bird": {
        "n02058221": 146,
        "n02056570": 145,
        "n01855672": 99,
        "n02002724": 128,
    },
    "insect": {
        "n02279972": 323,
        "n02281406": 325,
        "n02233338": 314,
        "n02236044": 315,
        "n02165456": 301,
        "n02206856": 309,
    },
    "ungulate": {
        "n02437312": 354,
        "n02423022": 353,
        "n02395406": 341,
        "n02403003": 345,
        "n02415577": 349,
        "n02410509": 347,
    },
    "clothing": {
        "n02963159": 474,
        "n04254777": 806,
        "n03404251": 568,
        "n02669723": 400,
        "n03770439": 655,
        "n04259630": 808,
    },
    "food": {
        "n07749582": 951,
        "n07695742": 932,
        "n07753592": 954,
        "n07734744": 947,
        "n07747607": 950,
        "n07711569": 935,
    },
    "motor_vehicle": {
        "n03796401": 675,
        "n03977966": 734,
        "n03670208": 627,
        "n04285008": 817,
        "n02814533": 436,
        "n03100240": 511,
    },
    "structure": {
        "n04486054": 873,
        "n03160309": 525,
        "n02814860": 437,
        "n02927161": 467,
        "n04366367": 839,
        "n04501370": 877,
    },
}
INDICES = {
    wnid: index for table in (MIXED_10, TINY_IMAGENET) for part in table.values() for wnid, index in part.items()
}


def category_names() -> tuple[str, ...]:
    """The names of the 1,000 classes, all distinct, as torchvision's weights have them."""
    from torchvision.models import get_model_weights  # two seconds

    return tuple(get_model_weights("resnet18").DEFAULT.meta["categories"])


def indices_of(wnids: Sequence[str], folder: Path, root: Path) -> dict[str, int]:
    """The number of each class: its place among all 1,000, or what the class index in the data root says.

    Parameters
    ----------
    wnids : sequence of str
        WordNet ids, the names of the folders in `folder`.
    folder : Path
        For messages.
    root : Path
        The data root.

    Raises
    ------
    InvalidInput
        Naming what is no class of ImageNet.
    Absent
        Where it is not all 1,000 and there is no class index.
    """
    _refuse(folder, (wnid for wnid in wnids if not re.fullmatch(r"n\d{8}", wnid)))
    if len(wnids) != N_CLASSES:
        known = _class_index(root)
        _refuse(folder, (wnid for wnid in wnids if wnid not in known))
        return {wnid: known[wnid] for wnid in wnids}
    numbered = {wnid: index for index, wnid in enumerate(sorted(wnids))}
    for wnid, index in INDICES.items():
        if numbered.get(wnid) != index:
            raise InvalidInput(
                f"{folder} holds 1,000 folders, but not ImageNet's: {wnid} is number {numbered.get(wnid)} of them, "
                f"expected {index}: take the folders of ILSVRC2012 and no others"
            )
    return numbered


def _refuse(folder: Path, strangers: Iterable[str]) -> None:
    stranger = next(iter(strangers), None)
    if stranger is not None:
        raise InvalidInput(
            f"{folder / stranger} is no class of ImageNet, expected folders with the names of WordNet ids (n01440764): "
            "rename it or remove it"
        )


def _class_index(root: Path) -> Mapping[str, int]:
    path = root / CLASS_INDEX
    if not path.exists():
        raise Absent(
            f"{path} is missing: without all 1,000 folders, it is needed to number the classes. "
            f"Get it from {CLASS_INDEX_ADDRESS}."
        )
    try:
        known = {str(entry[0]): int(index) for index, entry in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError, TypeError, LookupError):
        known = {}
    if sorted(known.values()) != list(range(N_CLASSES)) or not INDICES.items() <= known.items():
        raise InvalidInput(
            f'{path} is not the index of ImageNet\'s 1,000 classes, expected {{"0": ["n01440764", "tench"], ...}}: '
            f"get it again from {CLASS_INDEX_ADDRESS}"
        )
    return known

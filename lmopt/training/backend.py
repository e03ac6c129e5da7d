"""TensorFlow, tf_keras and tfmot, imported once and with the settings they need."""

from __future__ import annotations

import os

# tfmot takes Keras from TensorFlow unless this is set before either is imported.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
import tf_keras as keras

__all__ = ["keras", "tf"]

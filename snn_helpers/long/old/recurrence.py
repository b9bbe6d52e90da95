"""An old address, for one version: see `snn_chapters.rhythms` and `snn_chapters.loops`."""

from snn_helpers.long.moved import moved

moved(__name__, "rhythms", "loops")

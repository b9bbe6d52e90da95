"""An old address, for one version: see `snn_chapters.depth`."""

from snn_helpers.long.moved import moved

moved(__name__, "depth")

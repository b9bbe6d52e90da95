"""An old address, for one version: see `snn_chapters.rhythms`."""

from snn_helpers.long.moved import moved

moved(__name__, "rhythms")

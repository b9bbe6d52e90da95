"""An old address, for one version: what was here is in snn_chapters.depth."""

from warnings import warn

from snn_chapters.depth import *  # noqa: F403

warn("snn_helpers.depth has moved to snn_chapters.depth", FutureWarning, stacklevel=2)

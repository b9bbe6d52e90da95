"""An old address, for one version: what was here is in snn_chapters.binary."""

from warnings import warn

from snn_chapters.binary import *  # noqa: F403

warn("snn_helpers.surrogates has moved to snn_chapters.binary", FutureWarning, stacklevel=2)

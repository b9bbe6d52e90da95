"""An old address, for one version: what was here is in snn_chapters.boltzmann."""

from warnings import warn

from snn_chapters.boltzmann import *  # noqa: F403

warn("snn_helpers.boltzmann has moved to snn_chapters.boltzmann", FutureWarning, stacklevel=2)

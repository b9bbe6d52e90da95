"""An old address, for one version: what was here is in snn_chapters.rhythms and snn_chapters.loops."""

from warnings import warn

from snn_chapters.loops import *  # noqa: F403
from snn_chapters.rhythms import *  # noqa: F403

warn("snn_helpers.recurrence has moved to snn_chapters.rhythms and snn_chapters.loops", FutureWarning, stacklevel=2)

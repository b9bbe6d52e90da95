"""The same numbers, sooner: nobody needs this folder to follow the book. Derived in `performance`."""

from .readout import can_read_out, read_out, release
from .scan import can_scan, scan

__all__ = ["can_read_out", "can_scan", "read_out", "release", "scan"]

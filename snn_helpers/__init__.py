"""The helper package of the book: what a chapter has derived, so that later ones can import it."""

from .data import load_mnist
from .encoding import flicker
from .layers import SpikingLayer
from .networks import MLP, LayerRecord, SpikingNet
from .neurons import Neuron, neuron_step
from .training import Evaluation, History, evaluate, fit

__path__.append(f"{__path__[0]}/long/old")  # the addresses of version 0.2, for one version
__version__ = "0.2.0"
__all__ = [
    "MLP",
    "Evaluation",
    "History",
    "LayerRecord",
    "Neuron",
    "SpikingLayer",
    "SpikingNet",
    "evaluate",
    "fit",
    "flicker",
    "load_mnist",
    "neuron_step",
]

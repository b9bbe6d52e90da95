"""Who may use a network whose equations they have written out once more."""

from __future__ import annotations

from torch import nn

from ..layers import SpikingLayer
from ..networks import SpikingNet
from .checks import weight_and_bias


def plain_layers(net: nn.Module, for_what: str, any_read_out: bool = False) -> list[SpikingLayer]:
    """The layers of a network that does what chapter 03 derives, and no more; a `TypeError` in words for another one.

    What writes out the equations of such layers once more would give wrong numbers for others: `for_what` names it in
    the message. With `any_read_out` it does not matter how the layers become an answer.
    """
    told = f"{for_what} is derived for a SpikingNet, layers of SpikingLayer one after another"
    if not isinstance(net, SpikingNet):
        raise TypeError(f"{told}; {type(net).__name__} is another kind of network")
    ways = {"run": "runs them"} | ({} if any_read_out else {"read_out": "reads them", "forward": "answers"})
    for way, what in ways.items():
        if getattr(getattr(net, way), "__func__", None) is not getattr(SpikingNet, way):
            raise TypeError(f"{told}; {type(net).__name__} {what} in a way of its own")
    layers = []
    for place, layer in enumerate(net.layers, start=1):
        if not (isinstance(layer, SpikingLayer) and layer.is_plain):
            raise TypeError(f"{told}; layer {place} is a {type(layer).__name__} with dynamics or settings of its own")
        if weight_and_bias(layer.linear) is None:
            raise TypeError(
                f"{told}; layer {place} has a {type(layer.linear).__name__}, with the parameters"
                f" {', '.join(dict(layer.linear.named_parameters())) or 'of none'} and perhaps a forward of its own, in"
                " place of an nn.Linear with weights and biases"
            )
        layers.append(layer)
    return layers

"""What the checks of chapter 3 say of answers that come near to a mistake which they know."""

from __future__ import annotations

import pytest
import torch
from snn_chapters.exercises import training

from snn_helpers import SpikingNet
from snn_helpers.long.exercise import NotYet


def test_where_no_output_neuron_fires_no_answer_is_taken_for_one_that_is_read_from_outputs() -> None:
    net, generator = SpikingNet(12, generator=torch.Generator().manual_seed(3)), torch.Generator().manual_seed(4)
    shown, labels = torch.rand(30, 784, generator=generator) - 0.5, torch.randint(10, (30,), generator=generator)
    with torch.no_grad():
        net.layers[1].linear.bias.sub_(5)
        output = net.run((shown / 2).expand(12, -1, -1))[-1]
    assert not output.outputs.any()
    given = {"net": net, "shown": shown, "shown_labels": labels, "answers": labels, "n_steps": 12}
    right = output.states.mean(dim=0).argmax(dim=1)
    with pytest.raises(NotYet, match="answers are others"):
        training.steady_answers((right + torch.arange(30) % 3) % 10, **given)
    with pytest.raises(NotYet, match="yours is read from outputs"):
        training.steady_answers(output.outputs.mean(dim=0).argmax(dim=1), **given)
    assert training.steady_answers(right, **given)

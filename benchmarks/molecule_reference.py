"""EDM's network as one writes it first: every molecule padded to the largest of the batch, all pairs, masks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionkit.core.rows import Rows
from diffusionkit.molecule.backbones.egnn import EGNN, EquivariantBlock
from diffusionkit.molecule.backbones.pairs import PairNetwork


class Padded(nn.Module):
    """The function of an EGNN, from its own parameters, computed the padded dense way.

    As in EDM's code (Hoogeboom et al. 2022) all n_max^2 pairs of each molecule, also those of an atom with itself and those with
    padding, go through both networks of pairs, whose first layer is applied to [h_i, h_j, d_ij, d_ij at input] put side by side;
    masks take away what does not exist. EDM lists the pairs by indices and adds messages up by `scatter_add_`; here they are a
    (B, n_max, n_max, 2 width + 2) tensor that is summed over its third dimension, which is faster on a CPU.

    Args:
        network: with attention and Gaussian kinds, without conditions and fragments.
    """

    def __init__(self, network: EGNN) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, x: dict[str, Tensor], t: Tensor, cond: None = None, rows: Rows | None = None
    ) -> dict[str, Tensor]:
        """As an EGNN, for rows whose molecules follow one another."""
        assert rows is not None
        net, counts = self.network, rows.counts()
        most = int(counts.max())
        there = torch.arange(most) < counts[:, None]
        atoms = there[..., None].to(t.dtype)
        pairs = atoms.unsqueeze(2) * atoms.unsqueeze(1) * (1 - torch.eye(most, dtype=t.dtype)[..., None])
        told = torch.cat([x["type"], *([x["charge"]] if net.charge else []), rows.spread(t)[:, None]], 1)
        h, start = net.enter(_padded(told, there)) * atoms, _padded(x["pos"], there)
        pos, first = start, _lines(start)[1]
        for block in net.blocks:
            h, pos = _block(block, h, pos, first, atoms, pairs)
        moved = (pos - start) * atoms
        moved = (moved - moved.sum(1, keepdim=True) / atoms.sum(1, keepdim=True)) * atoms
        kind, charge = net.leave(h)[there].split([net.elements, int(net.charge)], 1)
        return {"pos": moved[there], "type": kind} | ({"charge": charge} if net.charge else {})


def _block(
    block: EquivariantBlock, h: Tensor, pos: Tensor, first: Tensor, atoms: Tensor, pairs: Tensor
) -> tuple[Tensor, Tensor]:
    line, squared = _lines(pos)
    features = torch.cat([squared, first], -1)
    message = _pairs(block.messages, h, features)
    message = message * torch.sigmoid(block.messages.head(message)) * pairs
    h = (h + block.update(torch.cat([h, message.sum(2)], -1))) * atoms
    step = torch.tanh(block.moves.head(_pairs(block.moves, h, features))) * block.reach * pairs
    return h, (pos + (line / ((squared + 1e-8).sqrt() + block.norm) * step).sum(2)) * atoms


def _pairs(network: PairNetwork, h: Tensor, features: Tensor) -> Tensor:
    n = h.shape[1]
    both = [h.unsqueeze(2).expand(-1, -1, n, -1), h.unsqueeze(1).expand(-1, n, -1, -1), features]
    return F.silu(network.second(F.silu(network.first(torch.cat(both, -1)))))


def _lines(pos: Tensor) -> tuple[Tensor, Tensor]:
    line = pos.unsqueeze(2) - pos.unsqueeze(1)
    return line, line.square().sum(-1, keepdim=True)


def _padded(value: Tensor, there: Tensor) -> Tensor:
    found = value.new_zeros(*there.shape, value.shape[1])
    found[there] = value
    return found

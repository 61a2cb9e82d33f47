"""Molecules come back from the state as they went in."""

import numpy as np
import pytest
import torch

from diffusionkit.core import Rows
from diffusionkit.errors import UserError
from diffusionkit.molecule.codec import MoleculeCodec
from tests.molecule.small import coded, molecules

OPTIONS = [
    {},
    {"charge": True},
    {"types": "codes"},
    {"types": "codes", "charge": True, "scales": (1.5, 2.0, 5.0)},
    {"hydrogens": False, "scales": (2.0, 1.0, 10.0)},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_molecules_come_back_centred(options):
    codec, data = coded(molecules(options.get("hydrogens", True)), **options)
    order = torch.tensor([5, 0, 3])
    x, cond, rows = data.batch(order)
    assert cond is None and {k: v.shape for k, v in x.items()} == codec.like(len(rows.index))
    assert rows.pool(x["pos"]).abs().max() < 1e-4
    back = codec.decode(x, rows)
    assert [len(z) for z, _ in back] == data.n[order.numpy()].tolist()
    for (z, pos), i in zip(back, order.tolist(), strict=True):
        wanted_z, wanted = data.one(i)
        assert (z == wanted_z).all() and np.abs(pos - (wanted - wanted.mean(0))).max() < 1e-5
    sized = codec.decode({**x, "size": rows.counts()})
    assert all((a[1] == b[1]).all() for a, b in zip(back, sized, strict=True))


def test_rows_in_any_order_decode_to_the_same_molecules():
    codec, data = coded(molecules())
    x, _, rows = data.batch(torch.arange(4))
    shuffled = torch.argsort(torch.arange(len(rows.index)) % 3, stable=True)
    again = codec.decode({k: v[shuffled] for k, v in x.items()}, Rows(rows.index[shuffled], rows.size))
    for (z, pos), (z_2, pos_2) in zip(codec.decode(x, rows), again, strict=True):
        pairs, others = (sorted(zip(*of, strict=True)) for of in ((z, pos[:, 0]), (z_2, pos_2[:, 0])))
        assert pairs == others


def test_a_state_of_one_molecule_needs_no_rows():
    codec, data = coded(molecules())
    z, pos = data.one(2)
    x = codec.encode(z, pos + 7)
    assert torch.allclose(x["pos"].mean(0), torch.zeros(3), atol=1e-5)


def test_histogram_counts_the_atoms_of_the_training_part():
    codec, data = coded(molecules())
    assert codec.histogram.tolist() == np.bincount(data.n).tolist() and codec.largest == data.n.max()
    assert codec.elements == sorted(set(data.z.tolist()))


def test_an_element_that_the_model_does_not_know_is_refused_by_name():
    codec, _ = coded(molecules(smiles=["CCO", "CC"]))
    with pytest.raises(UserError, match=r"element Br .*\(H, C, O\)"):
        codec.encode([6, 35], np.zeros((2, 3)))


def test_properties_are_standardised_and_left_out_at_random_in_training():
    found = molecules()
    values = np.arange(len(found) * 2, dtype=np.float32).reshape(-1, 2)
    values[3, 1] = np.nan
    _, data = coded(type(found)(found.z, found.pos, found.n, found.smiles, values, ("logP", "rings")))
    shown = data.batch(torch.arange(len(data))).cond["properties"]
    assert torch.equal(shown.isnan(), torch.from_numpy(values).isnan())
    assert torch.allclose(shown.nanmean(0), torch.zeros(2), atol=1e-6)
    generator = torch.Generator().manual_seed(0)
    hidden = [data.batch(torch.arange(len(data)), generator).cond["properties"].isnan() for _ in range(50)]
    share = torch.stack(hidden).float().mean((0, 1))
    assert ((share > 0.4) & (share < 0.65)).all()


def test_saved_and_loaded_it_is_the_same(tmp_path):
    codec, _ = coded(molecules(), charge=True, types="codes", scales=(1.5, 2.0, 5.0))
    codec.save(tmp_path)
    again = MoleculeCodec.load(tmp_path)
    assert again.arguments() == codec.arguments() and again.scales == codec.scales
    assert torch.equal(again.histogram, codec.histogram) and torch.equal(again.seen, codec.seen)
    (tmp_path / "codec.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="damaged"):
        MoleculeCodec.load(tmp_path)

"""A small protein's file, written out by hand as PDB and as mmCIF."""

from __future__ import annotations

ATOMS = """
ATOM   A 1   SER N  . 1.00  0.0  0.0 0.0 N
ATOM   A 1   SER CA . 1.00  1.5  0.0 0.0 C
ATOM   A 1   SER C  . 1.00  2.0  1.4 0.0 C
ATOM   A 1   SER O  . 1.00  1.3  2.4 0.0 O
ATOM   A 1   SER CB . 1.00  2.0 -0.8 1.2 C
ATOM   A 1   SER OG A 0.40  3.4 -0.8 1.2 O
ATOM   A 1   SER OG B 0.60  1.6 -0.2 2.4 O
ATOM   A 1   SER H  . 1.00 -0.3 -0.9 0.0 H
HETATM A 2   MSE N  . 1.00  3.3  1.5 0.0 N
HETATM A 2   MSE CA . 1.00  3.9  2.8 0.0 C
HETATM A 2   MSE SE . 1.00  5.7  2.8 0.0 SE
ATOM   A 45B ALA N  . 1.00  5.0  5.0 5.0 N
ATOM   A 45B ALA CA . 1.00  6.4  5.0 5.0 C
ATOM   B 1   GLY N  . 1.00 20.0  0.0 0.0 N
ATOM   B 1   GLY CA . 1.00 21.4  0.0 0.0 C
HETATM A 101 ZN  ZN . 1.00  4.0  0.0 4.0 ZN
HETATM A 102 ACT C  . 1.00  9.0  0.0 0.0 C
HETATM A 102 ACT O  . 1.00  9.6  1.1 0.0 O
HETATM A 102 ACT OX . 1.00  9.6 -1.1 0.0 O
HETATM A 201 HOH O  . 1.00  7.0  7.0 7.0 O
HETATM A 202 HOH O  . 1.00 -7.0  7.0 7.0 O
"""


def rows(text=ATOMS):
    return [line.split() for line in text.strip().splitlines()]


def pdb(text=ATOMS):
    lines = []
    for k, (kind, chain, number, residue, name, altloc, occ, x, y, z, element) in enumerate(rows(text), 1):
        digits, letter = (number, " ") if number.isdigit() else (number[:-1], number[-1])
        padded = name.ljust(4) if len(element) == 2 else f" {name:<3}"
        lines.append(
            f"{kind:<6}{k:>5} {padded}{altloc.replace('.', ' ')}{residue:>3} {chain}{digits:>4}{letter}   "
            f"{float(x):8.3f}{float(y):8.3f}{float(z):8.3f}{float(occ):6.2f}{10:6.2f}          {element:>2}"
        )
    return "\n".join([*lines, "END", ""])


def mmcif(text=ATOMS):
    keys = """group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id label_entity_id label_seq_id
    pdbx_PDB_ins_code Cartn_x Cartn_y Cartn_z occupancy B_iso_or_equiv auth_seq_id auth_asym_id pdbx_PDB_model_num""".split()
    lines = ["data_small", "loop_", *(f"_atom_site.{key}" for key in keys)]
    for k, (kind, chain, number, residue, name, altloc, occ, x, y, z, element) in enumerate(rows(text), 1):
        digits, letter = (number, "?") if number.isdigit() else (number[:-1], number[-1])
        own = f"{chain}{residue}{number}" if kind == "HETATM" and residue != "MSE" else chain
        lines.append(
            f"{kind} {k} {element} {name} {altloc} {residue} {own} 1 . {letter} {x} {y} {z} {occ} 10 {digits} {chain} 1"
        )
    return "\n".join([*lines, ""])

"""Pricing many bit assignments without searching again: tables of layers and of networks.

A mapping's counts do not depend on bits, so a layer's mappings are counted once and priced at every triple of widths
(`LayerTable`); a network's bill is a gather from such tables (`NetworkTable`), ten thousand assignments at a time.
"""

from hwsim.tables.assignable import Column
from hwsim.tables.layer_table import LayerTable
from hwsim.tables.network_table import NetworkTable
from hwsim.tables.pool import Widths
from hwsim.tables.rows import Priced

__all__ = ["Column", "LayerTable", "NetworkTable", "Priced", "Widths"]

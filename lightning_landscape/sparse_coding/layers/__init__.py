"""Layers of unrolled networks, one a file. A layer of your own is a file with its ``kind``, and a line here."""

from lightning_landscape.sparse_coding.layers.alista import ALISTALayer as ALISTALayer
from lightning_landscape.sparse_coding.layers.alista import analytic_weights as analytic_weights
from lightning_landscape.sparse_coding.layers.facnet import FacNetLayer as FacNetLayer
from lightning_landscape.sparse_coding.layers.facnet import FreeFacNetLayer as FreeFacNetLayer
from lightning_landscape.sparse_coding.layers.facnet import cayley as cayley
from lightning_landscape.sparse_coding.layers.facnet import polar_factor as polar_factor
from lightning_landscape.sparse_coding.layers.l_fista import LFISTALayer as LFISTALayer
from lightning_landscape.sparse_coding.layers.layer import LAYERS as LAYERS
from lightning_landscape.sparse_coding.layers.layer import UnrolledLayer as UnrolledLayer
from lightning_landscape.sparse_coding.layers.lista import LISTALayer as LISTALayer
from lightning_landscape.sparse_coding.layers.lista_cp import LISTACPLayer as LISTACPLayer
from lightning_landscape.sparse_coding.layers.lista_cp import LISTACPSSLayer as LISTACPSSLayer
from lightning_landscape.sparse_coding.layers.slista import SLISTALayer as SLISTALayer
from lightning_landscape.sparse_coding.layers.support_selection import ThresholdingLayer as ThresholdingLayer
from lightning_landscape.sparse_coding.layers.tilista import TiLISTALayer as TiLISTALayer

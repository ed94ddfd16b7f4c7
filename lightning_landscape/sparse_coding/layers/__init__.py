"""Layers of unrolled networks, one a file, and their names in recipes."""

from lightning_landscape.sparse_coding.layers.alista import ALISTALayer, analytic_weights
from lightning_landscape.sparse_coding.layers.facnet import FacNetLayer, FreeFacNetLayer, cayley, polar_factor
from lightning_landscape.sparse_coding.layers.l_fista import LFISTALayer
from lightning_landscape.sparse_coding.layers.layer import UnrolledLayer
from lightning_landscape.sparse_coding.layers.lista import LISTALayer
from lightning_landscape.sparse_coding.layers.lista_cp import LISTACPLayer, LISTACPSSLayer
from lightning_landscape.sparse_coding.layers.slista import SLISTALayer
from lightning_landscape.sparse_coding.layers.tilista import TiLISTALayer

LAYERS: dict[str, type[UnrolledLayer]] = {
    "lista": LISTALayer,
    "l_fista": LFISTALayer,
    "facnet": FacNetLayer,
    "facnet_free": FreeFacNetLayer,
    "lista_cp": LISTACPLayer,
    "lista_cpss": LISTACPSSLayer,
    "alista": ALISTALayer,
    "tilista": TiLISTALayer,
    "slista": SLISTALayer,
}

__all__ = [
    "LAYERS",
    "ALISTALayer",
    "FacNetLayer",
    "FreeFacNetLayer",
    "LFISTALayer",
    "LISTACPLayer",
    "LISTACPSSLayer",
    "LISTALayer",
    "SLISTALayer",
    "TiLISTALayer",
    "UnrolledLayer",
    "analytic_weights",
    "cayley",
    "polar_factor",
]

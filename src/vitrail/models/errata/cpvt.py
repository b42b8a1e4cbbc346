"""Errata of CPVT."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "cpvt",
        "Bias of the PEG's convolution",
        (
            "paper, section 4.2: 1,728 parameters for C = 192, so no bias",
            "the authors' code of the PEG in Twins: a bias, 1,920 parameters",
        ),
        "the code; CPVT-Ti then has 35,904 parameters fewer than DeiT-Ti, the paper's figure",
        "tests/parts/test_peg.py::test_parameters_as_the_paper_counts_them",
    ),
)

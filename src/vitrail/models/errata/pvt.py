"""Errata of PVT."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "pvt",
        "Epsilon of the norms after patches and spatial reductions",
        (
            "official code: 1e-5 (PyTorch's default), and 1e-6 in blocks",
            "Hugging Face: 1e-6 in all norms, also for the weights that it converted",
        ),
        "the official code; `reduction_eps=1e-6` gives Hugging Face's, with which its files are read",
        "tests/weights/test_weights_pvt_sizes.py::test_transformers_is_not_given_another_epsilon",
    ),
    Erratum(
        "pvt",
        "Position tables at another size",
        (
            "official code: resized bilinearly, compared with the patch count of the first stage in every stage",
            "Hugging Face: compared with the pixels of the image, so always resized, from the grid to itself: other"
            " sizes fail",
        ),
        "the official code's bilinear filter, in each stage from the stage's own grid",
        "tests/parts/test_positions.py::test_bilinear_positions_are_resized_without_antialiasing",
    ),
    Erratum(
        "pvt",
        "Sizes that are no multiple of a patch",
        (
            "official code, Hugging Face: the rest of the image and of each map is dropped",
            "Swin's official code: the map is padded with zeros",
        ),
        "padding, as in all models here; equal at multiples of 32",
        "tests/models/test_architectures.py::test_any_size",
    ),
)

"""Errata of UperNet."""

from vitrail.models.errata.erratum import Erratum

ERRATA = (
    Erratum(
        "upernet",
        "Number of parameters of UperNet-Swin-T",
        (
            "paper: 60 M",
            "Hugging Face: 59,943,398, with a last norm of the backbone that nothing reads",
        ),
        "59,941,862: each level has its norm, and the classifier's last norm is dropped",
        "tests/weights/test_weights_upernet.py::test_published_sizes",
    ),
    Erratum(
        "upernet",
        "Order of the four places that patch merging joins",
        (
            "the authors of Swin: (0, 0), (1, 0), (0, 1), (1, 1), channels fast",
            "mmsegmentation: the order of Unfold, channels slow; its files are permuted",
        ),
        "the authors; mmsegmentation's files are permuted when they are read",
        "tests/weights/test_weights_upernet.py::test_mmsegmentation_merges_patches_in_the_order_of_unfold",
    ),
    Erratum(
        "upernet",
        "Scores of an image whose sides are no multiples of the patch",
        (
            "Hugging Face: the padded map is resized to the image, so the scores shrink towards the upper left",
            "geometry: a cell covers a patch, so the padded part is cut off",
        ),
        "geometry: resize to the padded size, then crop; equal at multiples of the patch",
        "tests/parts/test_decoders.py::test_padding_is_cut_off_and_not_squeezed",
    ),
)

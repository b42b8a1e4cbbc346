"""One vector for each image or text: the input of a model's last layer, or the mean of its tokens."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vitrail.data.dataset import ImageSet
from vitrail.data.datasets import Splits, open_dataset
from vitrail.data.image_io import printable
from vitrail.data.label_sets import has_label_sets
from vitrail.data.table import Columns
from vitrail.data.text_tables import open_texts
from vitrail.data.texts import TextSet, TextSplits
from vitrail.data.transform import EvalTransform
from vitrail.errors import VitrailError
from vitrail.fused.auto_optimize import InferenceRunner
from vitrail.native.image_resize import best_pixels
from vitrail.parts.exported_file import check_layers
from vitrail.parts.model import ImageModel, Model
from vitrail.parts.restorer import Restorer
from vitrail.parts.text_heads import MeanOfSequence
from vitrail.tasks.image_sources import SourceImage, find_images
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.padded_texts import PaddedTexts, TextAnswers
from vitrail.tasks.text_inputs import encode_texts, most_tokens, need_vocabulary
from vitrail.tasks.text_sources import TextLine, checked_text, find_lines, named_sources
from vitrail.text.vocabulary import Vocabulary

Pool = Literal["auto", "mean", "first"]
"""`auto`: input of the head's last layer, else the mean; `mean`: mean of the tokens; `first`: the first token."""


def feature_reader(model: Model, pool: Pool = "auto") -> "ImageFeatures | TextFeatures":
    """Return the reader of a model's features.

    Raises:
        VitrailError: the model has no single vector for an input.
    """
    check_layers(model, "features of the backbone are needed")
    if isinstance(getattr(model, "inputs", None), Vocabulary) and hasattr(model, "features"):
        return TextFeatures(model, pool)
    if isinstance(model, ImageModel) and hasattr(model, "features") and not isinstance(model, Restorer):
        return ImageFeatures(model, pool)
    name = getattr(model, "variant", "") or type(model).__name__
    raise VitrailError(
        f"{name} gives no vector for an image or a text.\n"
        "Use a model with features: a classifier, a segmenter, or an encoder of text with its vocabulary."
    )


class ImageFeatures:
    """Vectors of images.

    Args:
        model: a model of images on its device.
        pool: source of the vector.
        precision: compute precision of the forward pass, `fp32` or `bf16` (autocast).

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1, image_size=32)
        >>> reader = ImageFeatures(model)
        >>> [image] = reader.collect(torch.zeros(3, 40, 50))
        >>> reader.vectors([reader.load(image)]).shape
        torch.Size([1, 192])
    """

    gate = None
    unit = "images"

    def __init__(self, model: Model, pool: Pool = "auto", precision: str = "fp32"):
        self.model = model
        self.pool: Pool = pool
        self.precision = precision
        self.prepare = EvalTransform(model.preprocess, best_pixels(None))

    def job(self) -> list[object]:
        """Return the options that determine the vectors, apart from the weights."""
        in_bf16 = [self.precision] if self.precision != "fp32" else []
        return [self.model.preprocess.to_dict(), "vectors", self.pool, *in_bf16]

    def sources(self, words: Sequence[str]) -> object:
        """Return the words of a command line as sources of `collect`."""
        return words

    def collect(self, sources: object) -> list[SourceImage]:
        """List images without reading them."""
        return find_images(sources)

    def open(self, spec: str, bad: Literal["fail", "skip"] = "fail", columns: Columns | None = None) -> Splits:
        """Open a data set of classes.

        Raises:
            VitrailError: the images have several labels each, or there is no such data.
        """
        try:
            return open_dataset(spec, bad=bad, columns=columns)
        except VitrailError as error:
            if columns in (None, Columns()) and has_label_sets(spec):
                raise VitrailError(
                    f"{printable(spec)} has several labels for an image; one class for each image is needed here.\n"
                    "Name a column that holds one class: --label-column (in Python, Columns(label=...))."
                ) from error
            raise

    def begin(self, count: int) -> None:
        """Prepare for a job: nothing, images have one implementation here."""

    def notes(self) -> str:
        """Return nothing: images are read whole."""
        return ""

    def load(self, item: SourceImage) -> Tensor:
        """Decode an image to the model's size, `(C, Y, X)` of uint8."""
        image = item.read()
        return self.prepare.to_pixels(image if image.mode == self.prepare.mode else image.convert(self.prepare.mode))

    def sample(self, data: ImageSet, number: int) -> Tensor:
        """Return an image of a data set, as `load` does."""
        return self.prepare.to_pixels(data.image(number, self.prepare.mode))

    def vectors(self, loaded: Sequence[Tensor]) -> Tensor:
        """Return the vectors of loaded images, `(B, C)` on the CPU."""
        with inference_mode_for(self.model) as device:
            images = self.prepare.batch(torch.stack(list(loaded)).to(device))
            with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                return pooled(self.model, (images,), self.pool)


class TextFeatures:
    """Vectors of texts; those longer than the model's positions are cut, which `notes` reports.

    Args:
        model: an encoder of texts on its device, with its vocabulary.
        pool: source of the vector.
    """

    gate = None
    unit = "texts"

    def __init__(self, model: Model, pool: Pool = "auto"):
        self.model, self.vocabulary = model, need_vocabulary(model)
        self.pool: Pool = pool
        self.longest = most_tokens(model.config, model.metadata.get("max_length"))
        self.runner: InferenceRunner | None = None
        self._texts = self._truncated = self._cut = self._replaced = 0

    def begin(self, count: int) -> None:
        """Prepare for a job of so many texts: the optimized model is taken if it is faster here and agrees."""

        def vectors(model: Any, texts: PaddedTexts) -> Tensor:
            return pooled(model, (texts.ids, texts.layout), self.pool)

        self.runner = InferenceRunner(self.model, count, kind=TextAnswers(vectors))

    def job(self) -> list[object]:
        """Return the options that determine the vectors, apart from the weights."""
        return [self.vocabulary.to_json(), self.longest, "vectors", self.pool]

    def sources(self, words: Sequence[str]) -> object:
        """Return the words of a command line as sources of `collect`: files with a text in each line."""
        return named_sources(words)

    def collect(self, sources: object) -> list[TextLine]:
        """List texts."""
        return find_lines(sources)

    def open(self, spec: str, bad: Literal["fail", "skip"] = "fail", columns: Columns | None = None) -> TextSplits:
        """Open a data set of classes.

        Raises:
            VitrailError: columns are named, which only tables of images have, or there is no such data.
        """
        if columns not in (None, Columns()):
            raise VitrailError("--image-column, --label-column and --split-column belong to tables of images.")
        return open_texts(spec, bad=bad)

    def load(self, item: TextLine) -> str:
        """Return the text."""
        return checked_text(item)

    def sample(self, data: TextSet, number: int) -> str:
        """Return a text of a data set."""
        return data.texts[number]

    def notes(self) -> str:
        """Return what was done to the texts so far, or nothing."""
        notes = []
        if self._truncated:
            most = f"the model reads {self.longest}"
            notes.append(f"{self._truncated} of {self._texts} texts were truncated, by {self._cut} tokens; {most}")
        if self._replaced:
            notes.append(f"{self._replaced} characters are not Unicode and were replaced")
        return "; ".join(notes)

    def vectors(self, loaded: Sequence[str]) -> Tensor:
        """Return the vectors of texts, `(B, C)` on the CPU."""
        encoded = encode_texts(self.vocabulary, loaded, self.longest)
        self._texts += len(loaded)
        self._truncated += sum(map(bool, encoded.truncated))
        self._cut, self._replaced = self._cut + sum(encoded.truncated), self._replaced + sum(encoded.replaced)
        with inference_mode_for(self.model) as device:
            texts = PaddedTexts.of(encoded.ids, device)
            if self.runner is not None:
                return self.runner(texts)
            return pooled(self.model, (texts.ids, texts.layout), self.pool)


def pooled(model: Model, inputs: tuple[object, ...], pool: Pool = "auto") -> Tensor:
    """Return one vector an input, `(B, C)` in fp32 on the CPU.

    Raises:
        VitrailError: `first` of a model without prefix tokens.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1, dim=8, num_heads=1, image_size=32).eval()
        >>> pooled(model, (torch.zeros(2, 3, 32, 32),)).shape
        torch.Size([2, 8])
    """
    vector = _head_input(model, inputs) if pool == "auto" else None
    if vector is None:
        features = model.features(*inputs)
        vector = _first(model, features) if pool == "first" else _mean(features)
    return vector.float().cpu()


def _head_input(model: Model, inputs: tuple[Any, ...]) -> Tensor | None:
    """Return the input of the head's last layer; of an encoder without classes the output; None if neither fits."""
    kept: list[Tensor] = []
    layer = getattr(model.head, "linear", None)
    if not isinstance(layer, nn.Module):
        out = model(*inputs) if getattr(model.config, "num_classes", None) in (0, None) else None
        return out if isinstance(out, Tensor) and out.ndim == 2 else None
    hook = layer.register_forward_pre_hook(_keep(kept))
    try:
        model(*inputs)
    finally:
        hook.remove()
    return kept[0] if len(kept) == 1 and kept[0].ndim == 2 and len(kept[0]) == len(inputs[0]) else None


def _keep(kept: list[Tensor]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        kept.append(arguments[0].detach())

    return hook


def _mean(features: Any) -> Tensor:
    """Return the mean over cells, or over the tokens of each text without its padding."""
    if hasattr(features.grid, "lengths"):
        return MeanOfSequence()(features)
    return features.tokens[:, getattr(features.grid, "prefix", 0) :].mean(dim=1)


def _first(model: Model, features: Any) -> Tensor:
    if not hasattr(features.grid, "lengths") and not getattr(features.grid, "prefix", 0):
        raise VitrailError(f"{model.variant} has no class token. Use --pool mean, or auto.")
    return features.tokens[:, 0]

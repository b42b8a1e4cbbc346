"""Encoder and decoder around one word table: a module of its own, since it has two inputs."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from vitrail.inputs import ModelInputs
from vitrail.layouts import TokenSequence
from vitrail.parts.backbone import Features
from vitrail.parts.model import Model, ModelKind, ModelLayer, stage_layers
from vitrail.parts.stages import Stage
from vitrail.parts.text_embedding import TextEmbedding
from vitrail.shapes import SourceIds, TokenIds, TokenLogits
from vitrail.text.vocabulary import Vocabulary


class EncoderDecoder(Model):
    """Source and target ids in, scores of the next target word out.

    "Attention Is All You Need", section 3.1, figure 1; one word table, section 3.4.

    Args:
        embedding: `(ids, layout) -> (x, layout)`, for source and target.
        encoder: stage of the source.
        encoder_norm: after the encoder; the identity if norms come last in its blocks.
        decoder: stage of the target; its blocks read `layout.memory`.
        decoder_norm: after the decoder.
        head: `(features, table) -> (B, N, V)`.
    """

    kinds: ClassVar[Mapping[str, ModelKind]] = {"translate": ModelKind("A translation model", "translation")}
    inputs_type: ClassVar[type[ModelInputs] | None] = Vocabulary

    def __init__(
        self,
        embedding: TextEmbedding,
        encoder: Stage,
        encoder_norm: nn.Module,
        decoder: Stage,
        decoder_norm: nn.Module,
        head: nn.Module,
    ):
        super().__init__()
        self.embedding, self.encoder, self.encoder_norm = embedding, encoder, encoder_norm
        self.decoder, self.decoder_norm, self.head = decoder, decoder_norm, head

    def layers(self) -> list[ModelLayer]:
        """List the embedding, the blocks of the encoder (stage 1) and of the decoder (stage 2), and the head."""
        encoder, decoder = stage_layers(self.encoder, 1), stage_layers(self.decoder, 2)
        encoder[-1].modules.insert(0, self.encoder_norm)
        return [ModelLayer(0, [self.embedding]), *encoder, *decoder, ModelLayer(3, [self.decoder_norm, self.head])]

    def encode(self, source: SourceIds, layout: TokenSequence | None = None) -> Tensor:
        """Return the memory `(B, M, C)` of a source."""
        x, layout = self.embedding(source, layout or TokenSequence(source.shape[1]))
        return self.encoder_norm(self.encoder(x, layout)[0])

    def decode(self, target: TokenIds, layout: TokenSequence) -> TokenLogits:
        """Return logits `(B, N, V)` of the word after each target token; `layout` holds the memory, and may a cache."""
        x = self.decode_features(target, layout)
        return self.head(Features(x, layout, ()), self.embedding.words.weight)

    def decode_features(self, target: TokenIds, layout: TokenSequence) -> Tensor:
        """Return the decoder's output `(B, N, C)`, from which the head scores words."""
        x, layout = self.embedding(target, layout)
        return self.decoder_norm(self.decoder(x, layout)[0])

    def forward(
        self,
        source: SourceIds,
        target: TokenIds,
        source_layout: TokenSequence | None = None,
        target_layout: TokenSequence | None = None,
    ) -> TokenLogits:
        """Return logits `(B, N, V)` of the word after each target token.

        Args:
            source: `(B, M)`.
            target: `(B, N)`, shifted right: it begins with the start token.
            source_layout: lengths of the sources, if some are padded.
            target_layout: lengths of the targets, if some are padded.
        """
        layout = target_layout or TokenSequence(target.shape[1])
        lengths = None if source_layout is None else source_layout.lengths
        memory = self.encode(source, source_layout)
        return self.decode(target, layout.replace(memory=memory, memory_lengths=lengths))

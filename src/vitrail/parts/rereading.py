"""Decoding of models in which tokens change places as a text grows: the whole text is computed for every new token."""

import torch

from vitrail.layouts import TokenSequence
from vitrail.parts.backbone import Features
from vitrail.parts.sequence_model import SequenceBackbone
from vitrail.shapes import TokenIds


class RereadingBackbone(SequenceBackbone):
    """Token ids in, features out; the cache of incremental decoding holds the ids of the text so far.

    LSH attention sorts all tokens again when one is added, so keys of earlier steps are of no use. Each step computes
    the features of the whole text and returns those of the new tokens, equal to a forward pass without a cache.
    """

    def forward(self, images: TokenIds, layout: TokenSequence | None = None) -> Features:
        """Embed, pass the stages, normalise; with a cache, the cached text first."""
        if layout is None or layout.cache is None:
            return super().forward(images, layout)
        states, new = layout.cache.states, images.shape[1]
        states[self] = torch.cat([states[self], images], dim=1) if self in states else images
        tokens, _, pyramid = super().forward(states[self], TokenSequence(states[self].shape[1]))
        return Features(tokens[:, -new:], layout, tuple(each[:, :, -new:] for each in pyramid))

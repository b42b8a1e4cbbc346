"""Explanation: attention maps of every mixer, rollout, saliency, influence and learned positions.

The tools depend on the mixer protocol, not on architectures; models without attention are explained by their Jacobian.

`query` selects a position: a token's index, `(row, column)` of its cell, or `query.Pixel(y, x)`.

| call | gives |
|---|---|
| `maps.attention_maps(model)` | context: the maps of every block with attention, the fast kernel stays on |
| `influence.influence_maps(model, images)` | how much each token moves each other, in any mixer |
| `influence.influence_rows(model, images, query)` | how much each token moves one, at any size |
| `saliency.saliency(model, images)`, `saliency.receptive_field(model, images, query)` | which pixels matter |
| `gradcam.gradcam(model, images)` | channels of a block by how much they move a class, `(B, H, W)` |
| `rollout.rollout(model, images)` | attention through all blocks, `(B, H, W)` |
| `distance.attention_distance(model, images)` | mean attention distance by block and head, in pixels |
| `positions.position_similarity(model)`, `positions.relative_bias(model)` | learned positions |
| `filters.principal_filters(model)` | principal components of the patch filters |
| `gallery.attention_overlays(model, images, method="auto") -> list[Image]` | one heatmap an image |
| `text_relevance.explain_text(model, text)` | words and tokens that decided, and the attention of every head |
| `gallery.overview(model, images) -> dict[str, Image]` | the images of a report, by title |

`images` are PIL images, which are preprocessed with `model.preprocess`, or a preprocessed batch `(B, C, Y, X)`;
`Image` is `PIL.Image.Image`. The methods are `maps`, `rollout`, `influence`, `saliency` and `gradcam`; `auto` is the
rollout if the model has attention maps, else the saliency.
"""

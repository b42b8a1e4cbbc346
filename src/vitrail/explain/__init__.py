"""Looking inside: attention maps of every mixer, and what can be read from them.

These tools know the socket, not the architectures; a model without attention is looked at through its Jacobian.

A place is asked for by `query`: a token's index, `(row, column)` of its cell, or `query.Pixel(y, x)`.

| call | gives |
|---|---|
| `maps.attention_maps(model)` | context: the maps of every block with attention, the fast kernel stays on |
| `influence.influence_maps(model, images)` | how much each token moves each other, in any mixer |
| `influence.influence_rows(model, images, query)` | how much each token moves one, at any size |
| `saliency.saliency(model, images)`, `saliency.receptive_field(model, images, query)` | which pixels matter |
| `rollout.rollout(model, images)` | attention through all blocks, `(B, H, W)` |
| `distance.attention_distance(model, images)` | mean attention distance by block and head, in pixels |
| `positions.position_similarity(model)`, `positions.relative_bias(model)` | what a model learned of places |
| `filters.principal_filters(model)` | principal components of the patch filters |
| `gallery.attention_overlays(model, pictures, method="auto") -> list[Image]` | one heat map an image |
| `gallery.overview(model, pictures) -> dict[str, Image]` | the images of a report, by title |

`pictures` are PIL images, prepared as `model.preprocess` says, or a batch `(B, C, Y, X)` that is prepared already;
`Image` is `PIL.Image.Image`. The methods are `maps`, `rollout`, `influence`, `saliency`; `auto` takes the rollout where
there are maps and the saliency elsewhere.
"""

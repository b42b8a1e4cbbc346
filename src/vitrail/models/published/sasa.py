"""Published figures of sasa."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "sasa_resnet26": Published(224, 10_342_632, 2_193_685_504, note="paper 10.3 M, 74.8"),
    "sasa_resnet38": Published(224, 14_190_632, 2_798_381_568, note="paper 14.1 M, 76.9"),
    "sasa_resnet50": Published(224, 18_038_632, 3_403_077_632, note="paper 18.0 M, 77.4, 7.0 G FLOPs"),
}

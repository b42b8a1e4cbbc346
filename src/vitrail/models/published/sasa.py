"""Published figures of sasa; the paper counts a multiplication and an addition as two operations."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "sasa_resnet26": Published(224, 10_342_632, 2_193_685_504, note="paper 10.3 M, 4.5 G operations, 75.8"),
    "sasa_resnet38": Published(224, 14_190_632, 2_798_381_568, note="paper 14.1 M, 5.7 G operations, 77.1"),
    "sasa_resnet50": Published(224, 18_038_632, 3_403_077_632, note="paper 18.0 M, 7.0 G operations, 77.4"),
    "sasa_resnet26_full": Published(224, 10_334_568, 2_207_346_688, note="paper 10.3 M, 4.7 G operations, 74.8"),
    "sasa_resnet38_full": Published(224, 14_182_568, 2_812_042_752, note="paper 14.1 M, 6.0 G operations, 76.9"),
    "sasa_resnet50_full": Published(224, 18_030_568, 3_416_738_816, note="paper 18.0 M, 7.2 G operations, 77.6"),
}

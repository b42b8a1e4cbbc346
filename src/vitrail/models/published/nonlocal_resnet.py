"""Published figures of nonlocal_resnet; GCNet (Cao et al., 2019), table 6, has one block on ImageNet."""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "nonlocal1_resnet50": Published(224, 27_658_792, 4_355_919_872, note="GCNet paper 27.66 M"),
    "nonlocal1_resnet50_dot": Published(224, 27_658_792, 4_410_310_656),
    "nonlocal1_resnet50_concatenation": Published(224, 27_659_816, 4_351_128_064),
    "nonlocal5_resnet50": Published(224, 32_915_496, 5_560_545_280),
}

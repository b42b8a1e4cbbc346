"""Published figures of UperNet at 512 x 512 with the 150 classes of ADE20K, auxiliary head included.

The paper rounds the parameters to 60, 81 and 121 million; Hugging Face's models have one unused norm more.
"""

from vitrail.models.published.figures import Published

PUBLISHED = {
    "upernet_swin_tiny": Published(512, 59_941_862, 234_947_200_896, task="segment"),
    "upernet_swin_small": Published(512, 81_259_766, 257_243_663_232, task="segment"),
    "upernet_swin_base": Published(512, 121_279_716, 293_045_778_944, task="segment"),
    "upernet_convnext_tiny": Published(512, 60_242_636, 234_636_115_968, task="segment"),
    "upernet_convnext_small": Published(512, 81_877_196, 256_726_204_416, task="segment"),
    "upernet_convnext_base": Published(512, 122_102_956, 292_355_833_856, task="segment"),
    "upernet": Published(512, 7_978_172, 24_194_044_416, task="segment"),
}

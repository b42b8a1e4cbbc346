"""Published figures of SwinIR: parameters of the authors' code; multiply-adds at 64 x 64 input pixels.

The paper's 878, 886 and 897 thousand parameters of the lightweight models leave the tables of relative positions out.
"""

from vitrail.models.published.figures import Published

PUBLISHED = {
}

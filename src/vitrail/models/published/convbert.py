"""Published figures of convbert: parameters as transformers counts `ConvBertForMaskedLM`."""

from vitrail.models.published.figures import text

PUBLISHED = {
    "conv_bert_base": text(106_303_170, 13_693_353_984, "masked", "106 M (paper); GLUE 86.4"),
}

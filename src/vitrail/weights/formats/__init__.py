"""Every format that is read and written: one file an architecture, one table a library."""

from vitrail.errors import VitrailError, unknown
from vitrail.weights.formats import deit, poolformer, swin, vit
from vitrail.weights.keymap import Format, Rule

VITRAIL = Format("vitrail", (), (Rule("{*}", "{*}"),), ("backbone.stages.0.blocks.0.{*}", "backbone.embedding.{*}"))

FORMATS: tuple[Format, ...] = (VITRAIL, *vit.FORMATS, *deit.FORMATS, *swin.FORMATS, *poolformer.FORMATS)


def format_for(name: str, family: str) -> Format:
    """Return the format of a library for an architecture.

    Raises:
        VitrailError: nobody has a library of that name, or it does not have that architecture.

    Example:
        >>> format_for("timm", "swin").marks[0]
        'layers.0.blocks.0.attn.relative_position_bias_table'
    """
    writable = [one for one in FORMATS if one.writes]
    names = {one.name for one in writable}
    if name not in names:
        raise unknown("format", name, names)
    if name == "vitrail":
        return VITRAIL
    for one in writable:
        if one.name == name and family in one.families:
            return one
    having = sorted({one.name for one in writable if family in one.families})
    raise VitrailError(f"{name} has no {family} that we know. Formats for {family}: {', '.join([*having, 'vitrail'])}.")

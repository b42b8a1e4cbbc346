"""Benchmark report, for the terminal and for a dated markdown file."""

from collections.abc import Iterator

from vitrail.bench.environment import in_lines
from vitrail.bench.result import BenchResult, Entry, Phase
from vitrail.bench.statistics import Quantiles
from vitrail.fused.accuracy import BARS, SAME_CLASS, Agreement
from vitrail.tasks.table import Table

_MIB = 1 << 20

HOW = (
    "All candidates hold the same weights and run in one process, turn by turn, in an order that rotates; a figure is"
    " the median over the rounds and ± half the distance of its quartiles, a ratio is taken within each round.",
    "Of each candidate the fastest of its ways counts; all that came near it in a short trial had turns of their own.",
    "GEU is a model's FLOP rate (two a multiply-add) over the rate of the machine's fastest matrix product in the same"
    " precision (for int8 in bf16), measured in the same rounds.",
    "Errors are against our model in fp32 as it was created: the largest difference of two logits, as a share of the"
    f" largest logit (fp32, bar {BARS['fp32']:g}) or of the range of the logits (bf16, bar {BARS['bf16']:g}; int8,"
    f" bar {BARS['int8']:g}).",
    f"In bf16 and int8 the best class must be the same in {SAME_CLASS['bf16']:.0%} and {SAME_CLASS['int8']:.0%} of the"
    " images; with random weights of those, in brackets, whose best class leads by half the bar.",
)
_INT8 = (
    "- In int8 computes vitrail-optimized alone, as far as it has such forms; all others run at their best in bf16, and"
    " their answers are held to the bars of bf16"
)


def page(bench: BenchResult) -> str:
    """Return the whole report in markdown."""
    head = [f"# {bench.name}, {bench.precision}, {bench.date[:10]}", "", *facts(bench), ""]
    verdicts = [f"**{line}**\n" for line in verdict(bench)]
    body = [table.section() for table in tables(bench)]
    return "\n".join([*head, *verdicts, *body, "## How", "", *(f"- {line}" for line in HOW)]) + "\n"


def facts(bench: BenchResult) -> list[str]:
    """Return model, settings and environment as lines of a list."""
    size = bench.subject["imgsz"]
    weights = bench.subject["weights"] or ("random weights" if not bench.trained else "its weights")
    return [
        f"- Command: `{bench.command}`",
        f"- Model: {bench.name}, {bench.parameters:,} parameters, {_macs(bench.macs)} multiply-adds an image"
        + (f" of {size} pixels" if size else "")
        + f", {weights}",
        f"- {bench.threads} threads, {bench.rounds} rounds, answers compared on {bench.checked}",
        *([_INT8] if bench.precision == "int8" else []),
        f"- Fastest product ({'bf16' if bench.precision == 'int8' else bench.precision}): {bench.product}",
        *in_lines(bench.machine),
    ]


def verdict(bench: BenchResult) -> list[str]:
    """Return one line per batch size with the speedup over the best peer."""
    lines = [line for phase in bench.phases if (line := _against_best(phase))]
    if not bench.sound:
        lines.append("Ours does not agree with the reference: its speed does not count.")
    if bench.rounds < 7:
        lines.append(f"{bench.rounds} rounds are a look, not a measurement: take 7 or more.")
    return lines


def tables(bench: BenchResult) -> Iterator[Table]:
    """Yield a table for each batch size, and one of cold starts and memory."""
    for phase in bench.phases:
        yield _speeds(bench, phase)
    if bench.starts:
        yield _starts(bench)


def ratio(spread: Quantiles) -> str:
    """Format a ratio with its quartiles.

    Example:
        >>> ratio(Quantiles(1.5, 1.4, 1.62, 7))
        '1.50 (1.40 to 1.62)'
    """
    return f"{spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f})"


def amount(spread: Quantiles, digits: int = 3) -> str:
    """Format a value with its noise.

    Example:
        >>> amount(Quantiles(123.4, 120.0, 126.0, 7)), amount(Quantiles(1234.5, 1234.5, 1234.5, 7))
        ('123 ±2%', '1,234 ±0%')
    """
    whole = spread.median >= 10 ** (digits - 1)
    return (f"{spread.median:,.0f}" if whole else f"{spread.median:.{digits}g}") + f" ±{spread.noise:.0%}"


def _macs(count: int | None) -> str:
    return "an unknown number of" if count is None else f"{count / 1e9:.3f} G"


def _against_best(phase: Phase) -> str | None:
    ours, best = phase.ours, phase.best_peer
    if best is None:
        return None
    times = ours.turns.times_as_fast(best.turns)
    return f"Batch {phase.batch}: {ours.name} is {ratio(times)} times as fast as the best peer, {best.name}."


def _speeds(bench: BenchResult, phase: Phase) -> Table:
    rate = bench.product_rate(phase)
    columns = ["candidate", "way", "img/s", "ms", "p95 ms", "ours is × as fast", "GEU", "error", "same class", "agrees"]
    rows = [_row(bench, phase, entry) for entry in sorted(phase.entries, key=lambda e: e.turns.spread.median)]
    notes = [f"Rate of the fastest product: {rate.median / 1e9:,.0f} ±{rate.noise:.0%} Gflop/s."]
    notes += [f"{name} did not take part: {why}" for name, why in phase.absent.items()]
    notes += [
        f"{entry.name}, other ways: " + "; ".join(f"{way}: {what}" for way, what in entry.others.items())
        for entry in phase.entries
        if entry.others
    ]
    return Table(f"Batch {phase.batch}", columns, rows, right=columns[2:9], notes=notes)


def _row(bench: BenchResult, phase: Phase, entry: Entry) -> list[str]:
    turns, same, share = entry.turns, entry.agreement, bench.geu(phase, entry)
    itself = entry.name == phase.ours.name
    return [
        entry.name,
        entry.way,
        amount(phase.images_per_second(entry)),
        f"{1e3 * turns.spread.median:.4g}",
        f"{1e3 * turns.p95:.4g}",
        "" if itself else ratio(phase.ours.turns.times_as_fast(turns)),
        "" if share is None else f"{share.median:.3f}",
        "not finite" if same.error is None else f"{same.error:.1e}",
        _same_class(same),
        "yes" if same.holds else "NO",
    ]


def _same_class(same: Agreement) -> str:
    if same.trained or same.decided == 0:
        return f"{same.same:.1%}"
    return f"{same.same:.1%} ({same.same_decided:.1%} of {same.decided})"


def _starts(bench: BenchResult) -> Table:
    columns = ["candidate", "way", "batch", "first s", "again s", "until first MB", "then MB"]
    rows = []
    for start in bench.starts:
        seconds = [f"{value:.2f}" if value is not None else "" for value in (start.first, start.again)]
        memory = [f"{value / _MIB:,.0f}" if value is not None else "" for value in (start.peak, start.running)]
        rows.append([start.name, start.way, str(start.batch), *seconds, *memory])
    notes = [
        "Seconds from the built model, in its own library, to its first answer: first with nothing compiled before,"
        " then again in a process that finds what the first one compiled. Memory: the most that the second process"
        " held until then and in the answers that follow, Python and libraries included.",
        *(f"{start.name}: {start.reason}" for start in bench.starts if start.reason),
    ]
    return Table("First answer and memory", columns, rows, right=columns[2:], notes=notes)

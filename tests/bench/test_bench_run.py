"""The whole bench on candidates that are made up: wrong ones are caught, missing ones listed, all of it written."""

import json
import os
import stat
from dataclasses import replace
from functools import partial

import pytest
import torch
from PIL import Image

from vitrail.bench import cold_start, prepare, runner
from vitrail.bench.candidate import Candidate, Variant
from vitrail.bench.cold_start import measure_start, try_alone
from vitrail.bench.inputs import blotches, views
from vitrail.bench.interleaved_timing import Timings
from vitrail.bench.model_spec import ModelSpec
from vitrail.bench.report import page, ratio, tables, verdict
from vitrail.bench.result import Entry, Phase
from vitrail.bench.runner import BenchPlan, ask_all, run_bench, use_threads
from vitrail.bench.torch_runners import unchanged
from vitrail.errors import DataError, VitrailError
from vitrail.machine.matmul_peak import Product
from vitrail.models import create_model
from vitrail.preprocess import Preprocess
from vitrail.tasks.table import Table
from vitrail.weights.folder import save_model

SMALL = ModelSpec("vit_tiny_patch16_224", imgsz=32, set=("depth=1", "dim=32", "num_heads=2", "num_classes=7"))
QUICK = BenchPlan(batches=(2,), precision="fp32", rounds=2, seconds=0.0, check=5, starts=False)


def taking_part(name: str, change=lambda logits: logits, ours: bool = False) -> Candidate:
    """Return a candidate that runs our model and then changes its outputs."""

    def start(module, example):
        answer = unchanged(module, example)
        return lambda images: change(answer(images))

    way = Variant("as it is", lambda model, example: model, start)
    return Candidate(name, lambda model, example, precision: [way], ours=ours)


OURS, GOOD = taking_part("vitrail", ours=True), taking_part("good")
WRONG = taking_part("wrong", lambda logits: logits.roll(1, 1))
NAN = taking_part("nan", lambda logits: logits * torch.nan)
MISSING = Candidate("missing", lambda *_: [], needs=("no_such_engine",))
BROKEN = taking_part("broken", lambda logits: logits[:, :3])


@pytest.fixture(autouse=True)
def _one_product(monkeypatch):
    """Take a product that needs no search."""
    product = Product("linear 2 x 3 x 4", 48, lambda: torch.ones(2, 3) @ torch.ones(3, 4))
    monkeypatch.setattr(runner, "best_product", lambda dtype, device: product)


@pytest.fixture(scope="module")
def bench():
    """Measure everybody once."""
    with pytest.MonkeyPatch.context() as patch:
        product = Product("linear 2 x 3 x 4", 48, lambda: torch.ones(2, 3) @ torch.ones(3, 4))
        patch.setattr(runner, "best_product", lambda dtype, device: product)
        return run_bench(SMALL, [OURS, GOOD, WRONG, NAN, MISSING, BROKEN], QUICK, "vitrail bench small")


def test_wrong_outputs_are_caught_and_correct_ones_pass(bench):
    [phase] = bench.phases
    assert {entry.name: entry.agreement.holds for entry in phase.entries} == {
        "vitrail": True,
        "good": True,
        "wrong": False,
        "nan": False,
    }


def test_tolerance_follows_the_precision_of_each_candidate():
    """Both are off by 5 % of the range: within the bar of int8, and beyond that of bf16."""

    def off(logits):
        return logits + 0.05 * (logits.max() - logits.min())

    ours = replace(taking_part("vitrail-optimized", off, ours=True), int8=True)
    bench = run_bench(SMALL, [ours, taking_part("peer", off)], replace(QUICK, precision="int8"))
    held = {entry.name: (entry.agreement.precision, entry.agreement.holds) for entry in bench.phases[0].entries}
    assert held == {"vitrail-optimized": ("int8", True), "peer": ("bf16", False)} and bench.sound
    written = page(bench)
    assert "all others run at their best in bf16" in written and "Fastest product (bf16): " in written


def test_excluded_candidates_are_listed_with_a_reason(bench):
    absent = bench.phases[0].absent
    assert set(absent) == {"missing", "broken"}
    assert "pip install" in absent["missing"] and "(5, 3) for (5, 7)" in absent["broken"]


def test_a_wrong_own_output_fails_the_bench(bench):
    assert bench.sound
    wrong = run_bench(SMALL, [taking_part("vitrail", lambda logits: logits + 1.0, ours=True)], QUICK)
    assert not wrong.sound and "its speed does not count" in "\n".join(verdict(wrong))


def test_every_candidate_is_timed_in_every_round(bench):
    [phase] = bench.phases
    assert {len(entry.turns.seconds) for entry in phase.entries} == {len(phase.product.seconds)} == {2}


def test_the_fastest_variant_counts(monkeypatch):
    """A trial is short: the fastest variants are timed again, interleaved with all others; these times count."""
    hasty = taking_part("they", lambda logits: logits + 1.0).ways(None, None, "")[0]._replace(name="hasty")
    steady = GOOD.ways(None, None, "")[0]._replace(name="steady")
    they = Candidate("they", lambda model, example, precision: [hasty, steady])
    times = {"vitrail: as it is": 1.0, "they: hasty": 3.0, "they: steady": 2.0, "the machine's product": 0.5}

    def alternate(calls, *_, **__):
        assert set(calls) == set(times)
        return {name: Timings(((times[name],), (2 * times[name],))) for name in calls}

    monkeypatch.setattr(prepare, "NEAR", float("inf"))
    monkeypatch.setattr(runner, "alternate", alternate)
    [phase] = run_bench(SMALL, [OURS, they], QUICK).phases
    entry = phase.best_peer
    assert (entry.name, entry.way, entry.others) == ("they", "steady", {"hasty": "1.50 times its time"})
    assert entry.agreement.holds and phase.ours.turns.times_as_fast(entry.turns).median == 2.0


def test_figures_follow_from_the_raw_times(bench):
    [phase] = bench.phases
    values = json.loads(json.dumps(bench.to_dict(), allow_nan=False))
    [told] = values["phases"]
    rounds = {entry["name"]: [sorted(calls)[0] for calls in entry["turns"]["seconds"]] for entry in told["entries"]}
    products = [calls[0] for calls in told["product"]["seconds"]]
    for name, figures in told["figures"].items():
        rates = [2 / seconds for seconds in rounds[name]]
        flops = [2 * values["macs"] * rate for rate in rates]
        shares = [rate / (48 / product) for rate, product in zip(flops, products, strict=True)]
        assert figures["images_per_second"]["median"] == pytest.approx(sum(rates) / 2)
        assert figures["geu"]["median"] == pytest.approx(sum(shares) / 2)
    assert told["figures"][phase.ours.name]["ours_times_as_fast"]["median"] == 1.0


def test_multiply_adds_are_those_of_the_model(bench):
    patches, qkv, attention, proj, mlp, head = (
        4 * 768 * 32,
        5 * 32 * 96,
        2 * 25 * 32,
        5 * 32 * 32,
        10 * 32 * 128,
        32 * 7,
    )
    assert bench.macs == patches + qkv + attention + proj + mlp + head


def test_the_report_has_command_machine_and_every_candidate(bench):
    text = page(bench)
    assert text.startswith(f"# vit_tiny_patch16_224, fp32, {bench.date[:10]}\n") and "`vitrail bench small`" in text
    for words in ("Processor: ", "torch " + torch.__version__.split("+")[0], "Batch 2", "GEU", "linear 2 x 3 x 4"):
        assert words in text
    for name, mark in {"good": "yes", "wrong": "NO", "nan": "NO"}.items():
        assert [line for line in text.splitlines() if line.startswith(f"| {name} |") and line.endswith(f"| {mark} |")]
    assert "not finite" in text and "missing did not take part: no_such_engine is not installed" in text
    assert "2 rounds are a look, not a measurement" in text
    assert os.path.expanduser("~") not in text


def test_the_verdict_names_the_fastest_peer(bench):
    [phase] = bench.phases
    peers = [entry for entry in phase.entries if not entry.ours]
    fastest = min(peers, key=lambda entry: entry.turns.spread.median)
    assert phase.best_peer == fastest and verdict(bench)[0].endswith(f"the best peer, {fastest.name}.")


def test_without_peers_there_is_no_verdict():
    alone = run_bench(SMALL, [OURS], BenchPlan(**{**vars(QUICK), "rounds": 7}))
    assert verdict(alone) == [] and [table.title for table in tables(alone)] == ["Batch 2"]


def test_the_faster_own_candidate_is_compared(bench):
    def entry(name: str, seconds: float, ours: bool) -> Entry:
        return Entry(name, ours, "", {}, Timings(((seconds,),)), bench.phases[0].entries[0].agreement)

    entries = entry("vitrail", 3.0, True), entry("peer", 2.0, False), entry("vitrail-optimized", 1.0, True)
    phase = Phase(4, entries, {}, Timings(((1.0,),)))
    assert phase.ours.name == "vitrail-optimized" and phase.best_peer is entries[1]
    assert phase.images_per_second(phase.ours).median == 4.0
    [line] = verdict(replace(bench, phases=(phase,), rounds=7))
    assert line == "Batch 4: vitrail-optimized is 2.00 (2.00 to 2.00) times as fast as the best peer, peer."


def test_threads_are_as_they_were():
    before = torch.get_num_threads()
    with use_threads(before + 1) as threads:
        assert threads == torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 8])
def test_images_are_evaluated_in_batches_of_one_size(batch):
    whole, sizes = torch.randn(5, 3, 2, 2), []

    def answer(images):
        sizes.append(len(images))
        return images.sum((2, 3))

    assert torch.equal(ask_all(answer, whole, batch), whole.sum((2, 3))) and set(sizes) == {batch}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batches": (1, 0)}, "each must be at least 1"),
        ({"batches": ()}, "batch is empty"),
        ({"rounds": 0}, "rounds is 0"),
        ({"check": 0}, "check is 0"),
        ({"threads": -1}, "threads is -1"),
        ({"precision": "fp16"}, "must be fp32, bf16 or int8"),
    ],
)
def test_an_invalid_plan_is_refused(change, words):
    with pytest.raises(VitrailError, match=words):
        BenchPlan(**change)


def test_a_subject_builds_the_same_model_each_time():
    one, other = (SMALL.build().state_dict() for _ in range(2))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert any(
        not torch.equal(one[key], value)
        for key, value in ModelSpec(**{**SMALL.to_dict(), "seed": 1}).build().state_dict().items()
    )


def test_building_a_subject_disturbs_no_random_numbers():
    before = torch.get_rng_state()
    SMALL.build()
    assert torch.equal(torch.get_rng_state(), before)


def test_no_random_parameter_is_zero_or_one():
    for name, value in ModelSpec("poolformer_s12", set=("dims=8,8,8,8", "depths=1,1,1,1")).build().named_parameters():
        assert not ((value == 0) | (value == 1)).any(), name


def test_a_trained_folder_runs_at_another_image_size(tmp_path):
    model = create_model("vit_tiny_patch16_224", depth=1, dim=32, num_heads=2, num_classes=7, image_size=32)
    save_model(model, tmp_path / "model")
    folder = ModelSpec(str(tmp_path / "model"))
    assert folder.trained and not SMALL.trained and folder.build().preprocess.size == 32
    larger = ModelSpec(str(tmp_path / "model"), imgsz=64).build()
    assert larger.preprocess.size == 64 and torch.equal(larger.head.linear.weight, model.head.linear.weight)
    assert larger(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_drawn_images_are_always_the_same_and_differ_from_one_another():
    drawn = blotches(8, 3, 32)
    assert torch.equal(drawn, blotches(8, 3, 32)) and not torch.equal(drawn, blotches(8, 3, 32, seed=1))
    flat = drawn.flatten(1)
    assert torch.corrcoef(flat).fill_diagonal_(0).abs().max() < 0.95


def test_views_of_few_images_fill_up(tmp_path):
    for i in range(3):
        Image.new("RGB", (40, 50), (80 * i, 0, 0)).save(tmp_path / f"{i}.png")
    seen = views(str(tmp_path), Preprocess(size=32), 8)
    assert seen.shape == (8, 3, 32, 32)
    assert torch.allclose(seen[3:6], seen[:3], atol=1e-5)  # parts of a plain image are plain
    assert torch.equal(views(str(tmp_path), Preprocess(size=32), 2), seen[:2])


def test_accuracy_is_compared_on_real_images(tmp_path):
    Image.new("RGB", (40, 50), (200, 10, 90)).save(tmp_path / "a.png")
    seen = run_bench(SMALL, [OURS], BenchPlan(**{**vars(QUICK), "data": str(tmp_path)}))
    assert seen.checked == f"5 views of the images in {tmp_path}" and seen.sound
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(DataError):
        run_bench(SMALL, [OURS], BenchPlan(**{**vars(QUICK), "data": str(tmp_path)}))


alone = partial(measure_start, batch=1, precision="fp32", threads=1)


def test_cold_start_runs_in_a_new_process():
    begun = alone(SMALL, "vitrail", "fp32 weights", warm=True)
    assert begun.reason is None and begun.first is None
    assert 0 < begun.again < 60 and begun.peak > 1 << 26 and begun.running > 1 << 26


def become(line: str, monkeypatch, tmp_path) -> None:
    """Let every new Python run a line of shell instead."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{line}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(cold_start.sys, "executable", str(script))


def test_a_failed_process_is_reported_with_its_last_line(monkeypatch, tmp_path):
    become("echo first >&2; echo 'Unavailable: no bf16' >&2; exit 3", monkeypatch, tmp_path)
    assert alone(SMALL, "vitrail", "x").reason == "its process ended with 3: Unavailable: no bf16"


def test_a_hanging_process_is_killed(monkeypatch, tmp_path):
    become("exec sleep 60", monkeypatch, tmp_path)
    monkeypatch.setattr(cold_start, "_LIMIT", 0.2)
    assert alone(SMALL, "vitrail", "x").reason == "no answer within 0.2 seconds"


def test_caches_are_empty_at_first_and_kept_for_the_second_process(monkeypatch, tmp_path):
    report = '{"seconds": %s, "peak": 1, "running": 1}'
    line = f"""cache=$TORCHINDUCTOR_CACHE_DIR
if [ -e $cache ]; then echo '{report % 1}'; else mkdir -p $cache; echo '{report % 9}'; fi"""
    become(line, monkeypatch, tmp_path)
    for _ in range(2):  # and nothing is left for the next candidate
        begun = alone(SMALL, "vitrail", "x")
        assert (begun.first, begun.again) == (9, 1)


def test_a_crashed_process_is_reported_and_others_continue(monkeypatch, tmp_path):
    become("kill -SEGV $$", monkeypatch, tmp_path)
    assert alone(SMALL, "vitrail", "fp32 weights").reason == "its process died of SIGSEGV"
    with pytest.raises(VitrailError, match="tried alone, its process died of SIGSEGV"):
        try_alone(SMALL, "openvino", "traced", batch=1, precision="fp32", threads=1)
    fragile = Candidate("fragile", GOOD.ways, fragile=True)
    bench = run_bench(SMALL, [OURS, fragile], QUICK)
    assert bench.phases[0].absent == {"fragile": "tried alone, its process died of SIGSEGV"}


def test_cold_start_times_have_their_own_table(monkeypatch):
    begun = cold_start.ColdStart("vitrail", "as it is", 2, 1.5, 0.5, 300 << 20, 200 << 20)
    monkeypatch.setattr(runner, "measure_start", lambda *args, **kwargs: begun)
    seen = run_bench(SMALL, [OURS], BenchPlan(**{**vars(QUICK), "starts": True}))
    *_, last = tables(seen)
    assert last.rows == [["vitrail", "as it is", "2", "1.50", "0.50", "300", "200"]]
    assert json.loads(json.dumps(seen.to_dict()))["starts"][0]["peak"] == 300 << 20


def test_cells_of_a_page_do_not_break_its_table():
    assert Table("t", ["a"], [["x|y\nz"]]).markdown().splitlines()[-1] == "| x\\|y z |"


def test_ratios_are_printed_with_quartiles(bench):
    [phase] = bench.phases
    assert ratio(phase.ours.turns.times_as_fast(phase.ours.turns)) == "1.00 (1.00 to 1.00)"


def test_the_medians_of_a_batch_are_told_before_the_next() -> None:
    told: list[str] = []
    run_bench(SMALL, [OURS, GOOD], replace(QUICK, batches=(1, 2)), on_message=told.append)
    medians = [number for number, line in enumerate(told) if " ms" in line]
    assert [told[number][: len("batch 1:")] for number in medians] == ["batch 1:", "batch 2:"]
    assert all(OURS.name in told[number] and GOOD.name in told[number] for number in medians)
    assert medians[0] < next(number for number, line in enumerate(told) if line.startswith("batch 2: preparing"))

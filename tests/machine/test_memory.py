from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from glmpatch.errors import UsageError
from glmpatch.machine.memory import MARGIN, MemoryPlan, describe, plan_memory, with_margin
from glmpatch.machine.need import CHATGLM_6B, ModelShape, Part, Workload, rank_need
from glmpatch.machine.placement import Placement, Seat, place
from glmpatch.machine.topology import HbmMode, Topology
from tests.machine.machines import GIB, machine, max9462

CONFIG: dict[str, Any] = {
    "num_layers": 28,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "inner_hidden_size": 16384,
    "vocab_size": 130528,
}
SMALL = ModelShape(8, 1024, 16, 4096, 65024)


def plan(
    topology: Topology, work: Workload | None = None, *, ranks: int | None = None, shape: ModelShape = CHATGLM_6B
) -> MemoryPlan:
    return plan_memory(topology, place(topology, ranks=ranks), rank_need(shape, work or Workload()))


def part(parts: tuple[Part, ...], title: str) -> int:
    return next(each.size for each in parts if each.title == title)


def test_the_model_has_the_parameters_that_its_authors_published() -> None:
    assert CHATGLM_6B.parameters == 6_173_286_400


def test_the_files_hold_the_model_and_its_head_in_fp16() -> None:
    assert CHATGLM_6B.checkpoint == pytest.approx((CHATGLM_6B.parameters + 130528 * 4096) * 2, rel=1e-4)


def test_the_sizes_are_read_from_a_configuration() -> None:
    shape = ModelShape.from_config(json.dumps(CONFIG).encode(), CHATGLM_6B.files)
    assert shape == CHATGLM_6B
    assert ModelShape.from_config(json.dumps(CONFIG).encode()).checkpoint == 2 * CHATGLM_6B.parameters


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[28]", "num_layers, hidden_size"),
        (json.dumps({**CONFIG, "num_layers": None}).encode(), "as num_layers$"),
        (json.dumps({**CONFIG, "hidden_size": 0}).encode(), "as hidden_size$"),
        (json.dumps({**CONFIG, "vocab_size": True}).encode(), "as vocab_size$"),
        (json.dumps({"n_layer": 2}).encode(), "vocab_size"),
    ],
)
def test_another_configuration_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        ModelShape.from_config(data)
    assert "ChatGLM-6B" in caught.value.hint


def test_the_weights_are_as_wide_as_the_dtype_and_the_prefix_is_fp32_with_either() -> None:
    bf16, fp32 = rank_need(CHATGLM_6B, Workload("bf16")), rank_need(CHATGLM_6B, Workload("fp32"))
    assert part(bf16.steady, "frozen weights") == 2 * CHATGLM_6B.parameters
    assert part(fp32.steady, "frozen weights") == 4 * CHATGLM_6B.parameters
    for need in (bf16, fp32):
        # 128 virtual tokens, a key and a value of 4096 numbers in each of 28 blocks.
        assert part(need.steady, "prefix encoder in fp32") == 128 * 28 * 2 * 4096 * 4
        assert part(need.steady, "moments of AdamW") == 2 * 128 * 28 * 2 * 4096 * 4


def test_loading_holds_the_head_twice_and_a_file_besides() -> None:
    need = rank_need(CHATGLM_6B, Workload())
    assert part(need.loading, "weights in fp16, the head apart") == (CHATGLM_6B.parameters + CHATGLM_6B.head) * 2
    assert part(need.loading, "file in hand") == CHATGLM_6B.files[-1]
    assert need.peak_bytes == need.loading_bytes > need.training_bytes


def test_a_checkpoint_of_one_file_is_in_memory_twice() -> None:
    need = rank_need(replace(CHATGLM_6B, files=()), Workload())
    assert part(need.loading, "file in hand") == 2 * CHATGLM_6B.parameters


def test_fp32_needs_most_when_it_trains() -> None:
    need = rank_need(CHATGLM_6B, Workload("fp32"))
    assert need.peak_bytes == need.training_bytes > need.loading_bytes


def test_the_logits_grow_with_tokens_and_rows_and_decide_in_the_end() -> None:
    few, many = (rank_need(CHATGLM_6B, Workload(batch=batch, pre_seq_len=8)) for batch in (8, 16))
    title = "logits and what the loss makes of them"
    assert part(few.step, title) == 8 * 128 * 130528 * 16
    assert part(many.step, title) == 2 * part(few.step, title)
    longer = rank_need(CHATGLM_6B, Workload(source_length=512, target_length=512, pre_seq_len=8))
    assert part(longer.step, title) == part(few.step, title)


def test_each_row_has_keys_and_values_of_its_own() -> None:
    one, four = (rank_need(CHATGLM_6B, Workload(batch=batch)) for batch in (1, 4))
    title = "keys, values and dropout mask of the prefix"
    assert part(four.step, title) == 4 * part(one.step, title)


def test_without_checkpointing_the_activations_of_all_blocks_stay() -> None:
    with_, without = (rank_need(CHATGLM_6B, Workload(batch=4, checkpointing=on)) for on in (True, False))
    assert without.training_bytes > with_.training_bytes + 27 * 4 * 128 * 8 * 16384 * 2


def test_the_network_behind_the_prefix_is_larger_than_its_table() -> None:
    need = rank_need(CHATGLM_6B, Workload(prefix_projection=True))
    network = 4096 * 4096 + 4096 + 4096 * 28 * 2 * 4096 + 28 * 2 * 4096
    assert part(need.steady, "prefix encoder in fp32") == 4 * (128 * 4096 + network)


@pytest.mark.parametrize("mode", ["cache", "flat", "only"])
def test_eight_ranks_on_two_sockets_of_64_gib_of_hbm_are_served_best_in_cache_mode(mode: HbmMode) -> None:
    found = plan(max9462(mode))
    assert found.ranks == 8
    assert found.best_mode == "cache"
    shares = {outlook.mode: outlook.share for outlook in found.modes}
    assert shares["cache"] == 1
    assert 0.5 < shares["flat"] < 1
    if mode == "only":
        assert shares["only"] == 0
        assert found.verdict == "tight"
    else:
        assert found.verdict == "fits"


def test_two_ranks_on_two_sockets_without_clusters_are_served_best_in_flat_mode() -> None:
    found = plan(machine(snc=1, cores=32, hbm="flat"))
    assert found.ranks == 2
    assert found.best_mode == "flat"
    assert found.modes[0].share == 1
    assert "page cache" in found.modes[0].why


def test_two_ranks_fit_into_hbm_alone() -> None:
    found = plan(machine(snc=1, cores=32, hbm="only"))
    assert (found.best_mode, found.verdict) == ("only", "fits")


def test_a_small_model_is_served_best_in_flat_mode() -> None:
    assert plan(max9462("cache"), shape=SMALL).best_mode == "flat"


def test_what_steps_read_in_fp32_would_push_itself_out_of_the_cache() -> None:
    found = plan(max9462("cache"), Workload("fp32"))
    flat, cache = found.modes
    assert (flat.mode, cache.mode) == ("flat", "cache")
    assert cache.share < flat.share < 1


def test_a_rank_across_clusters_can_prefer_one_node_of_hbm_but_has_the_cache_of_all() -> None:
    found = plan(max9462("flat"), ranks=2)
    assert found.best_mode == "cache"
    assert "68.7 GB" in found.modes[0].why


def test_ranks_that_share_a_cluster_share_its_hbm() -> None:
    assert "caches 8.6 GB" in plan(max9462("cache"), ranks=16).modes[-1].why


def test_without_hbm_there_is_no_mode() -> None:
    found = plan(machine())
    assert (found.modes, found.best_mode) == ((), "none")
    assert not any("HBM" in line for line in describe(found))


def test_cache_mode_needs_the_ddr_for_all() -> None:
    found = plan(machine(hbm="cache", ddr=8))
    assert found.verdict == "too small"
    cache = next(outlook for outlook in found.modes if outlook.mode == "cache")
    assert not cache.fits
    assert "it needs 137.6 GB of DDR" in cache.why


@pytest.mark.parametrize("mode", ["none", "cache", "flat", "only"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8, 16])
def test_nothing_is_lost_between_the_nodes(mode: HbmMode, ranks: int) -> None:
    found = plan(machine(hbm=mode), ranks=ranks)
    wanted, room = sum(node.wanted for node in found.nodes), sum(node.usable for node in found.nodes)
    assert sum(node.placed for node in found.nodes) == min(wanted, room)
    assert all(0 <= node.placed <= node.usable for node in found.nodes)
    assert wanted >= ranks * with_margin(found.need.peak_bytes) - ranks * 8


def test_in_flat_mode_a_full_node_of_hbm_spills_to_the_nearest_ddr() -> None:
    found = plan(max9462("flat"))
    ddr, hbm = found.nodes[:8], found.nodes[8:]
    for node, near in zip(hbm, ddr, strict=True):
        assert node.wanted > node.usable == node.placed
        assert near.wanted == 0
        assert near.placed == node.wanted - node.usable


def test_a_node_that_we_may_not_use_gets_nothing() -> None:
    found = plan(replace(max9462("cache"), allowed_nodes=(4, 5)))
    # Of two that are as far, the kernel takes the lower number: only the rank of cluster 5 has a nearer one.
    safe = with_margin(found.need.peak_bytes)
    assert [(node.number, node.wanted) for node in found.nodes] == [(4, 7 * safe), (5, safe)]


def test_hbm_that_we_may_not_use_serves_nobody() -> None:
    found = plan(replace(max9462("flat"), allowed_nodes=tuple(range(8))))
    assert {outlook.mode: outlook.share for outlook in found.modes} == {"flat": 0, "cache": 0}
    half = plan(replace(max9462("cache"), allowed_nodes=(4, 5, 6, 7)))
    assert "its HBM caches 8.6 GB" in half.modes[-1].why


def test_the_control_group_bounds_all_ranks_together() -> None:
    topology = machine()
    peak = rank_need(CHATGLM_6B, Workload()).peak_bytes
    verdicts = {
        limit: plan(replace(topology, memory_limit=limit)).verdict
        for limit in (8 * peak - 1, 8 * peak, 8 * with_margin(peak), None)
    }
    assert list(verdicts.values()) == ["too small", "tight", "fits", "fits"]
    assert "control group grants" in "".join(describe(plan(replace(topology, memory_limit=GIB))))
    assert not plan(replace(topology, memory_limit=GIB)).fits


def test_a_seat_that_prefers_a_cluster_without_memory_is_served_by_the_nearest() -> None:
    topology = machine(snc=2, packages=1)
    empty = replace(topology, nodes=(replace(topology.nodes[0], memory=0), topology.nodes[1]))
    seat = Seat(0, empty.cores[:8], (0,), 0)
    found = plan_memory(empty, Placement((seat,), 8), rank_need(SMALL, Workload()))
    assert [node.number for node in found.nodes] == [1]
    assert found.nodes[0].placed == with_margin(found.need.peak_bytes)


def test_the_plan_is_told_with_its_arithmetic() -> None:
    lines = describe(plan(max9462("cache")))
    assert lines[0] == f"memory of a rank: 15.0 GB, and 17.2 GB with a margin of {MARGIN:.0%}"
    assert "12.3 GB frozen weights" in lines[2]
    assert "not counted: evaluation" in lines[3]
    assert lines[4] == "nodes 0-7 (DDR): 17.2 GB wanted of 136.9 GB"
    assert lines[5] == "memory fits: 8 x 17.2 GB = 137.6 GB of the 1095.2 GB that the system leaves"
    assert lines[6].startswith(
        "best mode of HBM: cache (as now): each step reads 15.5 GB a rank, and its HBM caches 17.2"
    )
    assert lines[7].startswith(
        "mode of HBM: flat: a rank may fill 18.9 GB, 17.2 GB of its own and 1.7 GB of page cache"
    )


def test_a_full_node_is_told_with_where_the_rest_goes() -> None:
    lines = describe(plan(max9462("flat")))
    assert lines[4] == "nodes 0-7 (DDR): 0 MB wanted of 136.9 GB; 1.9 GB come from full nodes"
    assert lines[5] == "nodes 8-15 (HBM): 18.9 GB wanted of 17.0 GB; 1.9 GB go elsewhere"


def test_a_single_node_is_told_alone() -> None:
    assert describe(plan(machine(packages=1, snc=1)))[4].startswith("node 0 (DDR): 17.2 GB wanted")


def test_slower_memory_beside_hbm_makes_no_ddr_for_its_cache() -> None:
    only = max9462("only")
    cxl = replace(only.nodes[0], number=8, cpus=(), memory=512 * GIB, kind="other", distances=(40,) * 8 + (10,))
    nodes = tuple(replace(node, distances=(*node.distances, 40)) for node in only.nodes)
    found = plan(replace(only, nodes=(*nodes, cxl), allowed_nodes=tuple(range(9))))
    assert found.verdict == "fits"
    assert {outlook.mode for outlook in found.modes} == {"cache", "flat", "only"}
    assert found.nodes[8].placed == sum(node.wanted - node.placed for node in found.nodes[:8])

"""Configurations of NAS-Bench-301, as its records of trainings hold them."""

import json

import pytest

from nasi_jax.spaces import DARTS, DARTS_V2

# edges 0, 1 into node 2; 2 to 4 into 3; 5 to 8 into 4; 9 to 13 into 5
V2 = {
    "edge_normal_0": "sep_conv_3x3", "edge_normal_1": "sep_conv_3x3",
    "inputs_node_normal_3": "0_1", "edge_normal_2": "sep_conv_3x3", "edge_normal_3": "sep_conv_3x3",
    "inputs_node_normal_4": "0_1", "edge_normal_5": "skip_connect", "edge_normal_6": "sep_conv_3x3",
    "inputs_node_normal_5": "0_2", "edge_normal_9": "skip_connect", "edge_normal_11": "dil_conv_3x3",
    "edge_reduce_0": "max_pool_3x3", "edge_reduce_1": "max_pool_3x3",
    "inputs_node_reduce_3": "1_2", "edge_reduce_3": "max_pool_3x3", "edge_reduce_4": "skip_connect",
    "inputs_node_reduce_4": "0_2", "edge_reduce_5": "max_pool_3x3", "edge_reduce_7": "skip_connect",
    "inputs_node_reduce_5": "1_2", "edge_reduce_10": "max_pool_3x3", "edge_reduce_11": "skip_connect",
}  # fmt: skip
OTHERS = {"CreateImageDataLoader:batch_size": 96, "ImageAugmentation:cutout": True, "NetworkSelector:drop": None}


@pytest.mark.parametrize("prefix", ["", "NetworkInfo:darts:", "NetworkInfo_COLON_darts_COLON_"])
@pytest.mark.parametrize("write", [json.dumps, str, lambda c: f"config = {c}"])
def test_a_configuration_is_its_cells(prefix, write):
    assert DARTS().parse(write(OTHERS | {prefix + name: value for name, value in V2.items()})) == DARTS_V2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs_node_normal_4": None}, "expected inputs_node_normal_4"),
        ({"edge_reduce_11": None}, "expected edge_reduce_11"),
        ({"edge_normal_4": "skip_connect"}, r"got \['edge_normal_4'\] too"),
        ({"inputs_node_normal_5": "0-2"}, "expected two inputs, such as '0_1', of node 5, got '0-2'"),
        ({"inputs_node_normal_5": 3}, "expected a text for inputs_node_normal_5, got 3"),
        ({"inputs_node_normal_3": "0_3", "edge_normal_3": None, "edge_normal_5": "skip_connect"}, "expected"),
        ({"edge_normal_0": "conv_9x9"}, "conv_9x9"),
    ],
)
def test_what_is_no_configuration_is_refused(change, message):
    changed = {name: value for name, value in (V2 | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        DARTS().parse(str(changed))

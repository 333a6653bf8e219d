"""Figure 1 says what the network that it is given is."""

import matplotlib.pyplot as plt

from atsdp_utils.foundation.config import Architecture, Training
from atsdp_utils.models.network import ATSDPNet, n_parameters
from atsdp_utils.reporting import workflow

ARCH = Architecture(bottleneck=12, encoder=(11, 10), predictor=(9,), heads=3, tokens=2, token_dim=6)


def test_boxes_hold_the_sizes_of_the_network():
    net = ATSDPNet(17, ARCH)
    names = [box[3] for box in workflow.DRAWN["boxes"]]
    sizes = workflow.sizes(net, Training(noise=0.4, omega=0.7, theta=0.9), 23)
    found = dict(zip(names, sizes, strict=True))
    assert found["encoder $E_g$ (3)"] == f"17 → 11 → 10 → 12\n{n_parameters(net.source):,} weights"
    assert found["decoder $D_g$ (3)"].startswith("12 → 10 → 11 → 17\n")
    assert found["predictor $P$ (4–9, 11)"].startswith("2 tokens × 6, 3 heads\n12 → 9 → 2\n")
    assert found["predictor $P$ (4–9, 11)"].endswith(f"\n{n_parameters(net.predictor):,} weights")
    assert found["corrupt, $G$ (1)"] == "zero with p = 0.4"
    assert "0.7" in found["MMD (15)"] and "0.9" in found["regulariser (17)"]


def test_every_box_is_drawn_and_joined():
    boxes = workflow.DRAWN["boxes"]
    fig = workflow.workflow(ATSDPNet(17, ARCH), Training(), 23)
    texts = [t.get_text() for t in fig.axes[0].texts]
    plt.close(fig)
    assert all(box[3] in texts for box in boxes)
    assert {i for i, box in enumerate(boxes) if box[5]} | {i for box in boxes for i in box[5]} == set(range(len(boxes)))

"""Torchvision's Faster R-CNN as an encoder: the objects of a picture as its regions ("bottom-up attention").

As in Anderson et al. 2018 (https://arxiv.org/abs/1707.07998, section 3.1), with COCO's 91 classes in place of Visual
Genome's 1,600 and a box head that is 1,024 wide in place of 2,048.
"""

from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from rlcap.contracts import Encoder, Features, FeatureShape
from rlcap.data.images import check_resize
from rlcap.errors import ConfigError
from rlcap.models.encoder_parts import check_size
from rlcap.models.pretrained import check_weights, fetch_weights, read_weights
from rlcap.models.torchvision_encoders import IMAGENET_MEAN, IMAGENET_STD

STRIDE = 32
OVERLAP = 0.3  # of two boxes of a class (intersection over union) above which the less sure one goes
AT_ONCE = 4  # images: a detector needs much memory for each, and gains little by more


class FasterRCNN(Encoder):
    """Each region is a box, the likeliest object in it above others of its class, and the box head's view of it.

    The regions of an image are those of at least `confidence`, surest first, but no fewer than `fewest` (as far as
    there are boxes) and no more than `most`; both 36 gives the paper's fixed number, 10 and 100 its variable one.
    `weights`: "coco", "none", or the file of the network's state_dict (.pth, .safetensors). They stay as they are:
    the network is frozen, and always in evaluation mode. COCO's were learned at a short side of 800 pixels.
    """

    network: ClassVar[str] = "fasterrcnn_resnet50_fpn"  # in torchvision.models.detection
    epsilon: ClassVar[float | None] = 0.0  # that the backbone's batch norms were trained with; None: the usual one
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        weights: str = "coco",
        size: int = 800,
        resize: str = "squash",
        fewest: int = 10,
        most: int = 36,
        confidence: float = 0.2,
        weights_follow: bool = False,  # a run's own weights are loaded next: these need not be read
    ) -> None:
        super().__init__()
        from torchvision.models import detection  # takes seconds

        self.size, self.resize = check_size(size, STRIDE), check_resize(resize)
        self.fewest, self.most = check_size(fewest, 1, "fewest"), check_size(most, 2, "most")
        if fewest > most:
            raise ConfigError(f"fewest={fewest} regions of an image are more than most={most}; lower the one")
        if not 0 <= confidence <= 1:
            raise ConfigError(f"confidence={confidence}: is a probability; give 0 to 1")
        self.confidence = confidence
        file = state = None
        if weights != "none" and not weights_follow:
            file = fetch_weights(self.network, "COCO_V1", "COCO") if weights == "coco" else Path(weights)
            state = read_weights(file, "coco")
        self.detector = getattr(detection, self.network)(weights=None, weights_backbone=None)
        if weights != "none" and self.epsilon is not None:
            for module in self.detector.backbone.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eps = self.epsilon
        if state is not None:
            check_weights(state, self.detector, self.detector, f"{file} does not fit {self.network}")
            self.detector.load_state_dict(state, strict=False)
        self.detector.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        self.shape = FeatureShape(most, self.detector.roi_heads.box_predictor.cls_score.in_features)
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    def forward(self, images: Tensor) -> Features:
        values = images.new_zeros(len(images), self.most, self.shape.width)
        boxes = images.new_zeros(len(images), self.most, 4)
        mask = torch.zeros(len(images), self.most, dtype=torch.bool, device=images.device)
        found = [pair for some in images.split(AT_ONCE) for pair in self._regions(some)]
        for row, (seen, places) in enumerate(found):
            values[row, : len(seen)] = seen
            boxes[row, : len(seen)] = places / images.shape[-1]
            mask[row, : len(seen)] = True
        return Features(values, mask, boxes=boxes)

    def _regions(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Of each image: (K, D) features and (K, 4) boxes in pixels."""
        from torchvision.models.detection.image_list import ImageList

        heads = self.detector.roi_heads
        sizes = [(images.shape[-2], images.shape[-1])] * len(images)
        maps = self.detector.backbone((images - self.mean) / self.std)

        def looked_at(boxes: list[Tensor]) -> Any:
            return heads.box_head(heads.box_roi_pool(maps, boxes, sizes))

        proposals, _ = self.detector.rpn(ImageList(images, sizes), maps)
        logits, moves = heads.box_predictor(looked_at(proposals))
        moved = heads.box_coder.decode(moves, proposals)  # (P, classes, 4)
        counts = [len(boxes) for boxes in proposals]
        boxes = [
            self._chosen(scores, each, sizes[0])
            for scores, each in zip(logits.softmax(-1).split(counts), moved.split(counts), strict=True)
        ]
        return list(zip(looked_at(boxes).split([len(each) for each in boxes]), boxes, strict=True))

    def _chosen(self, scores: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """(P, classes) probabilities, (P, classes, 4) -> (K, 4). A proposal stands for its likeliest class alone."""
        from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

        sure, kind = scores[:, 1:].max(-1)  # class 0 is the background
        own = boxes[torch.arange(len(boxes), device=boxes.device), kind + 1]
        own = clip_boxes_to_image(own, size)
        real = remove_small_boxes(own, 1)
        best = real[batched_nms(own[real], sure[real], kind[real], OVERLAP)]  # the surest first
        enough = int((sure[best] >= self.confidence).sum())
        chosen: Tensor = own[best[: min(max(enough, self.fewest), self.most)]]
        return chosen


class FasterRCNNv2(FasterRCNN):
    """The later recipe (Li et al. 2021, arXiv 2111.11429): better boxes, more arithmetic."""

    network, epsilon = "fasterrcnn_resnet50_fpn_v2", None


class FasterRCNNMobile(FasterRCNN):
    """On MobileNetV3: several times faster on a CPU, and less sure of small things."""

    network, epsilon = "fasterrcnn_mobilenet_v3_large_fpn", None

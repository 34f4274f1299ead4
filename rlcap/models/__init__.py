"""Networks: encoders, attention, policies. Here are their short names; `module:Name` reaches any other."""

POLICIES = {
    "bottom_up_top_down": "rlcap.models.bottom_up_top_down:BottomUpTopDown",
    "sca_cnn": "rlcap.models.sca_cnn:SCACNN",
    "show_tell": "rlcap.models.show_tell:ShowTell",
    "hard_attention": "rlcap.models.hard_attention:HardAttention",
    "hugging_face": "rlcap.models.hugging_face:HuggingFace",
    "leakgan": "rlcap.models.leakgan:LeakGAN",
    "soft_attention": "rlcap.models.soft_attention:SoftAttention",
    "transformer": "rlcap.models.transformer:Transformer",
}

SCORERS = {
    "contrastive": "rlcap.models.contrastive:Contrastive",
}

ENCODERS = {
    "faster_rcnn": "rlcap.models.faster_rcnn:FasterRCNN",
    "faster_rcnn_v2": "rlcap.models.faster_rcnn:FasterRCNNv2",
    "faster_rcnn_mobile": "rlcap.models.faster_rcnn:FasterRCNNMobile",
    "hugging_face": "rlcap.models.hugging_face:HuggingFaceEncoder",
    "small_cnn": "rlcap.models.small_cnn:SmallCNN",
    "resnet18": "rlcap.models.torchvision_encoders:ResNet18",
    "resnet50": "rlcap.models.torchvision_encoders:ResNet50",
    "resnet101": "rlcap.models.torchvision_encoders:ResNet101",
    "vgg16": "rlcap.models.torchvision_encoders:VGG16",
    "vgg19": "rlcap.models.torchvision_encoders:VGG19",
}

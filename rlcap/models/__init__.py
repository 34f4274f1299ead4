"""Networks: encoders, attention, policies. Here are their short names; `module:Name` reaches any other."""

POLICIES = {
    "soft_attention": "rlcap.models.soft_attention:SoftAttention",
}

ENCODERS = {
    "small_cnn": "rlcap.models.encoders:SmallCNN",
    "resnet18": "rlcap.models.encoders:ResNet18",
    "resnet50": "rlcap.models.encoders:ResNet50",
    "resnet101": "rlcap.models.encoders:ResNet101",
    "vgg16": "rlcap.models.encoders:VGG16",
    "vgg19": "rlcap.models.encoders:VGG19",
}

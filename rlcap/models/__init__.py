"""Networks: encoders, attention, policies. Here are their short names; `module:Name` reaches any other."""

POLICIES = {
    "soft_attention": "rlcap.models.soft_attention:SoftAttention",
}

SCORERS = {
    "contrastive": "rlcap.models.contrastive:Contrastive",
}

ENCODERS = {
    "small_cnn": "rlcap.models.small_cnn:SmallCNN",
    "resnet18": "rlcap.models.torchvision_encoders:ResNet18",
    "resnet50": "rlcap.models.torchvision_encoders:ResNet50",
    "resnet101": "rlcap.models.torchvision_encoders:ResNet101",
    "vgg16": "rlcap.models.torchvision_encoders:VGG16",
    "vgg19": "rlcap.models.torchvision_encoders:VGG19",
}

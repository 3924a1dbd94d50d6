"""What a MODEL argument may be, in words: for messages and for the help of every command, without torch."""

FORMS = (
    "a zoo name (resnet18), a checkpoint folder, a saved workload (.json), a .pt2, .onnx or .tflite file, "
    "package.module:factory, timm:NAME, torchvision:NAME or hf:CONFIG"
)

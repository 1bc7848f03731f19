"""The network: VGG16, its preprocessing inside, one softmax head per task."""

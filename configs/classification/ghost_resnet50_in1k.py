# ResNet-50 of Ghost convolutions, s=2, on ImageNet: the paper's top-1 75.0.
_base_ = [
    "../_base_/models/ghostnet_classifier.py",
    "../_base_/datasets/imagenet.py",
    "../_base_/schedules/schedule_imagenet_100e.py",
    "../_base_/runtime_imagenet.py",
]
model = dict(
    backbone=dict(
        _delete_=True,
        type="GhostResNet",
        depth=50,
        ratio=2,
        out_indices=(3,),
        norm_eval=False,  # train BN
    ),
    head=dict(in_channels=2048, hidden_channels=None, dropout=0),
)
train_dataloader = dict(batch_size=32)

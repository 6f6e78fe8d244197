# The same for a pretrained backbone, which changes less than what is new.
_base_ = "schedule_scratch.py"

pretrained = __import__("ghostdet").given("weights", "backbone.pth", optional=True)
custom_keys = dict(backbone=dict(lr_mult=0.1)) if pretrained else {}
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=custom_keys))

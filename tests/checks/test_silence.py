"""No mistake in a config is silent: 71 single ones, and what is said of each."""

import pytest
from mmengine.config import DictAction

from ghostdet.checks import check_run
from ghostdet.errors import UserError

# An option of the small config, and a part of what is said before training.
FAULTS = """
lr=0.1 | did you mean optim_wrapper.optimizer.lr?
max_epochs=3 | list a key that your own code reads
optim_wraper.type=OptimWrapper | optim_wrapper.type
train_dataloder.batch_size=2 | did you mean train_dataloader.batch_size
randomnes.seed=1 | did you mean randomness.seed
model.backbone.widen_facto=1.0 | did you mean model.backbone.widen_factor?
model.neck.out_chanels=64 | did you mean model.neck.out_channels?
model.neck.in_channel=64 | did you mean model.neck.in_channels?
model.bbox_head.num_clases=3 | did you mean model.bbox_head.num_classes?
model.bbox_head.anchor_generator.octave_base_scal=2 | octave_base_scale?
model.bbox_head.loss_cls.gama=2.0 | did you mean model.bbox_head.loss_cls.gamma?
model.train_cfg.assigner.pos_iou_th=0.5 | did you mean model.train_cfg.assigner.pos_
model.data_preprocessor.meen=[0,0,0] | DetDataPreprocessor: DetDataPreprocessor.__init
model.test_cfg.max_per_im=10 | did you mean model.test_cfg.max_per_img?
optim_wrapper.optimizer.weight_decai=0.1 | optim_wrapper.optimizer.weight_decay?
default_hooks.logger.intervall=5 | did you mean default_hooks.logger.interval?
env_cfg.cudnn_benchmrk=True | did you mean env_cfg.cudnn_benchmark?
train_dataloader.sampler.shufle=True | did you mean train_dataloader.sampler.shuffle?
val_evaluator.metrik=bbox | unexpected keyword argument 'metrik'
visualizer.vis_backend=[] | did you mean visualizer.vis_backends?
model=3 | model is 3, expected dict(...)
train_cfg=3 | train_cfg is 3, expected dict(...)
optim_wrapper=3 | optim_wrapper is 3, expected dict(...)
train_dataloader=3 | train_dataloader is 3, expected dict(...)
train_dataloader=None | has no train_dataloader; copy it from configs/_base_
val_evaluator=3 | evaluator must be one of dict
param_scheduler=3 | `param_scheduler` should be a `_ParamScheduler`
default_hooks.checkpoint=3 | hook should be an instance of Hook or dict, but got 3
custom_hooks=[3] | hook should be an instance of Hook or dict
model.backbone.type=GoatNet | GoatNet is not in the mmdet::model registry
model.bbox_head.loss_cls.type=FocalLos | FocalLos is not in the mmdet::model registry
train_cfg.type=EpochBasedTrainLop | EpochBasedTrainLop is not in the
val_evaluator.type=CoccoMetric | CoccoMetric is not in the
visualizer.type=Nope | Nope is not in the
default_scope=mmdt | is not in the mmengine::visualizer registry
train_dataloader.dataset.datasets.0.pipeline.2.type=RandomFlop | RandomFlop is not in
val_dataloader.dataset.pipeline.0.type=PackDetInputs | no key 'scale_factor'
val_dataloader.persistent_workers=True | persistent_workers option needs num_workers > 0
optim_wrapper.optimizer.lr=fast | AdamW: TypeError
optim_wrapper.optimizer.lr=-1 | AdamW: ValueError: Invalid learning rate: -1
optim_wrapper.clip_grad.max_norm=x | could not convert string to float: 'x'
optim_wrapper.accumulative_counts=0 | OptimWrapper: _accumulative_counts
auto_scale_lr=None | base_batch_size=N
train_cfg.max_iters=0 | has no iteration
train_cfg.max_iters=x | invalid literal for int() with base 10: 'x'
train_cfg.val_interval=0 | val_interval is 0, expected 1 or more
train_cfg.val_interval=-1 | val_interval is -1, expected 1 or more
train_cfg.val_interval=x | val_interval is 'x', expected 1 or more
train_cfg.dynamic_intervals=[(2,0)] | val_interval is 0, expected 1 or more
val_dataloader.sampler.type=InfiniteSampler | without an end; use DefaultSampler
train_cfg.val_begin=1000 | no evaluation comes before the end of training
model.backbone.init_cfg=3 | a value has the wrong type
val_evaluator.metric=[] | val_evaluator computes no metric
val_evaluator.outfile_prefix=/proc/none/x | '/proc/none' cannot be written
train_dataloader.batch_size=0 | batch_size should be a positive integer value
train_dataloader.num_workers=-1 | num_workers option should be non-negative
model.neck.num_outs=1 | GhostNetFPN: assert num_outs >=
model.bbox_head.num_classes=80 | set num_classes=3
model.bbox_head.in_channels=7 | expected input[1, 64, 32, 32] to have 7 channels
model.backbone.out_indices=(2,3) | expects 3 levels with channels [20, 56, 80]
model.backbone.widen_factor=0 | widen_factor is 0, expected more than 0
model.data_preprocessor.std=[0,0,0] | a loss is not finite
model.bbox_head.anchor_generator.strides=[8] | anchor_generator.py
model.test_cfg.nms.type=nmss | name 'nmss' is not defined
val_evaluator.metric=bbx | val_evaluator fails with KeyError: metric should be one
val_evaluator.proposal_nums=(1,10,300) | Leave out val_evaluator.proposal_nums
val_evaluator.proposal_nums=(300,) | val_evaluator fails with IndexError
val_evaluator.metric_items=[mAP_5O] | metric item "mAP_5O" is not supported
train_dataloader.dataset=3 | train_dataloader.dataset is 3, expected dict(...)
val_cfg.fp16=True | unsupported ScalarType BFloat16
log_processor.window_size=x | The type of window size should be int
"""


@pytest.mark.parametrize("fault", FAULTS.strip().splitlines())
def test_each_is_named_before_training(tiny, fault):
    option, expected = fault.split(" | ")
    key, value = option.split("=", 1)
    try:
        cfg = tiny({"param_scheduler": None, key: DictAction._parse_iterable(value)})
        findings = check_run(cfg, quick=True)
    except UserError as error:
        said = error.text
    else:
        said = str([f for f in findings if f.status != "pass"])
    assert expected in said

# Tree crowns in aerial photographs, written by ghostdet.datasets.prepare_trees: tiles
# of 400 px, with a median crown of 38 px.
_base_ = "own_detection.py"
given = __import__("ghostdet").given

data_root = given("data_root", "data/trees/")
root = data_root.rstrip("/") + "/"
images = given("images", root)
folder = images.rstrip("/")
train_file = "annotations/instances_train.json"
val_file = "annotations/instances_val.json"
classes = given("classes", ("tree",))
image_size = given("image_size", (256, 256))  # in training

train_pipeline = [
    dict(type="LoadImageFromFile", max_unreadable=10),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="RandomFlip", prob=0.75, direction=["horizontal", "vertical", "diagonal"]
    ),
    dict(type="RandomResize", scale=(400, 400), ratio_range=(0.8, 1.25)),
    dict(type="RandomCrop", crop_size=image_size),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale_factor=1.0),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]
metainfo = dict(palette=[(255, 200, 0)])
val = dict(
    metainfo=metainfo,
    data_prefix=dict(img=f"{folder}/val/"),
    pipeline=test_pipeline,
)
train_dataloader = dict(
    dataset=dict(
        metainfo=metainfo,
        data_prefix=dict(img=f"{folder}/train/"),
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(dataset=val)
test_dataloader = val_dataloader

__import__("ghostdet").derive(globals())

# Blood cells (https://github.com/Shenggan/BCCD_Dataset, MIT) as COCO JSON:
# annotations/{train,val,test}.json and images/. Trains on train and val.
_base_ = "own_detection.py"
given = __import__("ghostdet").given

data_root = given("data_root", "data/bccd/")
root = data_root.rstrip("/") + "/"
images = given("images", root + "images/")
val_file = "annotations/test.json"
classes = given("classes", ("RBC", "WBC", "Platelets"))
image_size = given("image_size", (256, 256))

train_pipeline = [
    dict(type="LoadImageFromFile", max_unreadable=10),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="RandomFlip", prob=0.75, direction=["horizontal", "vertical", "diagonal"]
    ),
    dict(type="Resize", scale=image_size, keep_ratio=False),
    dict(type="PackDetInputs"),
]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="ConcatDataset",
        datasets=[
            dict(
                type="CocoDataset",
                metainfo=dict(classes=classes),
                ann_file=f"{root}annotations/{part}.json",
                data_prefix=dict(img=images),
                filter_cfg=dict(filter_empty_gt=True),
                pipeline=train_pipeline,
            )
            for part in ("train", "val")
        ],
    )
)

__import__("ghostdet").derive(globals())

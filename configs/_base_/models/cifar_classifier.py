# A classifier for CIFAR-10; the config adds the backbone.
model = dict(
    type="ImageClassifier",
    # Mean and deviation of all pixels of the training images, times 255. The deviations
    # often quoted, 0.2023, 0.1994 and 0.2010, are means over images
    # (https://github.com/kuangliu/pytorch-cifar/issues/129).
    data_preprocessor=dict(
        type="ImgDataPreprocessor",
        mean=[125.31, 122.95, 113.87],
        std=[62.99, 62.09, 66.70],
    ),
    head=dict(
        type="ClassificationHead", num_classes=10, hidden_channels=None, dropout=0
    ),
)

# A classifier of CIFAR-10's images, without a backbone.
model = dict(
    type="ImageClassifier",
    # Of all pixels of the 50,000 images to train on, times 255, as many have computed
    # (https://github.com/kuangliu/pytorch-cifar/issues/129); the deviations 0.2023,
    # 0.1994, 0.2010 that go round are means over images.
    data_preprocessor=dict(
        type="ImgDataPreprocessor",
        mean=[125.31, 122.95, 113.87],
        std=[62.99, 62.09, 66.70],
    ),
    head=dict(
        type="ClassificationHead", num_classes=10, hidden_channels=None, dropout=0
    ),
)

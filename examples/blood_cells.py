"""Red cells, white cells and platelets in pictures from a microscope: a detector that is trained from scratch.

A convolutional network looks at a grid of anchors, boxes laid out over the picture, and says of each what is there and
how its box differs. Focal loss and generalised IoU teach it, non-maximum suppression sorts out what was found more than
once, and mean average precision measures it on pictures that it has not seen. The data are the BCCD set (364 pictures
with boxes in Pascal VOC's format, MIT licence), as a zip file.
Sources: Lin et al., "Focal loss for dense object detection" (2017); Rezatofighi et al., "Generalized intersection over
union" (2019).

    python examples/blood_cells.py bccd.zip --plot cells.png
"""

import argparse
import io
import time
import xml.etree.ElementTree as ElementTree
import zipfile

import numpy as np
from PIL import Image

import chainrule as cr
from chainrule import detection, losses, nn, optim

CLASSES = ("RBC", "WBC", "Platelets")
HEIGHT, WIDTH, STRIDE = 192, 256, 8  # of the pictures, made smaller; pixels from one anchor to the next
SIZES = (16.0, 28.0, 42.0, 80.0)  # of the anchors
BATCH, RATE = 8, 4e-3
SCORE, OVERLAP = 0.05, 0.45  # what is less sure is not shown; what overlaps more is taken for the same cell


def read(path: str, part: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures (rows, 3, height, width) as bytes, boxes (rows, most, 4), classes (rows, most), −1 for none."""
    with zipfile.ZipFile(path) as archive:
        names = archive.read(f"BCCD/ImageSets/Main/{part}.txt").decode().split()
        images, objects = [], []
        for name in names:
            with Image.open(io.BytesIO(archive.read(f"BCCD/JPEGImages/{name}.jpg"))) as image:
                scale = np.array([WIDTH / image.width, HEIGHT / image.height] * 2)
                small = image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BOX)
                images.append(np.asarray(small).transpose(2, 0, 1))
            found = ElementTree.fromstring(archive.read(f"BCCD/Annotations/{name}.xml")).iter("object")
            objects.append([(box * scale, kind) for box, kind in map(described, found) if (box[2:] > box[:2]).all()])
    most = max(1, *map(len, objects))
    boxes, classes = np.zeros((len(names), most, 4), np.float32), np.full((len(names), most), -1)
    for i, found in enumerate(objects):
        for k, (box, kind) in enumerate(found):
            boxes[i, k], classes[i, k] = box, kind
    return np.stack(images), boxes, classes


def described(found: ElementTree.Element) -> tuple[np.ndarray, int]:
    """The box of an object, in pixels of the whole picture, and the number of its class."""
    corners = [float(found.findtext(f"bndbox/{name}", "nan")) for name in ("xmin", "ymin", "xmax", "ymax")]
    return np.array(corners), CLASSES.index(found.findtext("name", "?"))


def convolution(inputs: int, outputs: int, stride: int = 1) -> list:
    return [nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


class Detector(nn.Module):
    """Pictures (batch, 3, height, width) -> boxes (batch, anchors, 4) and scores of classes (batch, anchors, 3)."""

    def __init__(self, width: int = 24) -> None:
        self.pixels = nn.Pixels()
        self.body = nn.Sequential(
            *convolution(3, width, 2), *convolution(width, 2 * width, 2), *convolution(2 * width, 2 * width),
            *convolution(2 * width, 4 * width, 2),
            *[nn.Residual(*convolution(4 * width, 4 * width)) for _ in range(4)],
        )  # fmt: skip
        self.head = nn.Conv2d(4 * width, len(SIZES) * (4 + len(CLASSES)), 1)
        rare = np.full(self.head.bias.shape, -4.0, np.float32)  # nearly all anchors are background: begin with that
        self.head.assign({"bias": rare})

    def forward(self, images):
        """And the anchors."""
        grid = (images.shape[2] // STRIDE, images.shape[3] // STRIDE)
        anchors = detection.anchor_boxes(images.shape[2:], grid=grid, sizes=SIZES)
        y = cr.permute_dims(self.head(self.body(self.pixels(images))), (0, 2, 3, 1))
        y = y.reshape((len(images), len(anchors), 4 + len(CLASSES)))
        return detection.decode_boxes(y[..., :4], anchors, weights=(5, 5, 5, 5)), y[..., 4:], anchors


def objective(model, images, boxes, classes):
    """Focal loss of the classes and generalised IoU of the boxes, for each object."""
    found, logits, anchors = model(images)
    matches = detection.match_anchors(anchors, boxes, high=0.5, low=0.4)  # an object, −1: background, −2: left out
    hit, index = matches >= 0, cr.maximum(matches, 0)
    kind = cr.where(hit, cr.take_along_axis(classes, index, axis=1), -1)
    corners = cr.broadcast_to(index[..., None], (*index.shape, 4))
    wanted = (kind[..., None] == cr.arange(len(CLASSES))).astype("float32")
    of_classes = losses.sigmoid_focal(logits, wanted, reduction="none")
    of_boxes = losses.giou(found, cr.take_along_axis(boxes, corners, axis=1), reduction="none")
    total = cr.sum(cr.where(matches[..., None] == -2, 0, of_classes)) + cr.sum(cr.where(hit, of_boxes, 0))
    return total / cr.maximum(cr.sum(hit.astype("float32")), 1)


@cr.compile
def step(model, optimizer, images, boxes, classes):
    loss, grads = cr.value_and_grad(lambda m: objective(m, images, boxes, classes))(model)
    grads, _ = optim.clip_grad_norm(grads, 10.0)
    optimizer.update(model, grads)
    return loss


def mirrored(images, boxes, draw):
    """Half of the pictures from right to left, half of them upside down."""
    images, boxes = images.copy(), boxes.copy()
    for axis, first, size in ((3, 0, WIDTH), (2, 1, HEIGHT)):
        turned = draw.random(len(images)) < 0.5
        images[turned] = np.flip(images[turned], axis)
        boxes[turned, :, first::2] = size - boxes[turned][:, :, [first + 2, first]]
    return images, boxes


predict = cr.compile(lambda model, images: model(images)[:2])


def find(model, images):
    """What is in each picture: boxes, scores and classes, the surest first."""
    for image in images:
        (boxes,), (logits,) = predict(model.eval(), image[None])
        p = cr.sigmoid(logits)
        scores, classes = cr.max(p, axis=1), cr.argmax(p, axis=1)
        kept = detection.non_maximum_suppression(boxes, scores, OVERLAP, classes, score_threshold=SCORE)
        yield {"boxes": boxes[kept], "scores": scores[kept], "classes": classes[kept]}


def precision(found, boxes, classes) -> dict[str, float]:
    """Average precision at an IoU of ½: the mean, and for each class."""
    metric = cr.metrics.MeanAveragePrecision("voc")
    metric.update(found, [{"boxes": b[c >= 0], "classes": c[c >= 0]} for b, c in zip(boxes, classes, strict=True)])
    return {"mean": metric.compute()} | {CLASSES[k]: value for k, value in metric.by_class().items()}


def main(path: str, epochs: int = 80, plot: str | None = None) -> dict[str, float]:
    """Train on the train and validation lists, measure on the test list, draw; returns the precisions."""
    images, boxes, classes = read(path, "trainval")
    test = read(path, "test")
    cr.random.manual_seed(0)
    model, draw, begun = Detector(), np.random.default_rng(0), time.perf_counter()
    batches = len(images) // BATCH
    optimizer = optim.AdamW(lr=optim.one_cycle(RATE, total_steps=epochs * batches), weight_decay=0.02)
    print(f"{len(images)} pictures, {(classes >= 0).sum():,} cells; {model.parameter_count():,} parameters")
    for epoch in range(1, epochs + 1):
        model.train()
        order, total = draw.permutation(len(images))[: batches * BATCH].reshape(batches, BATCH), 0.0
        for rows in order:
            total += float(step(model, optimizer, *mirrored(images[rows], boxes[rows], draw), classes[rows]))
        if epoch % 10 == 0 or epoch == epochs:
            print(f"epoch {epoch:3}   loss {total / batches:.4f}   {time.perf_counter() - begun:.0f} s")
    found = list(find(model, test[0]))
    result = precision(found, *test[1:])
    for name, value in result.items():
        print(f"{name:10} average precision {value:.3f}")
    if plot:
        picture(test[0], found, plot)
        print(f"picture: {plot}")
    return result


def picture(images, found, path: str, sure: float = 0.4) -> None:
    """Pictures of the test list, and what was found in them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import patches, pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(11, 5.8), layout="constrained")
    for axis, image, objects in zip(axes.flat, images, found, strict=False):
        axis.imshow(image.transpose(1, 2, 0))
        axis.axis("off")
        columns = [np.asarray(objects[name]) for name in ("boxes", "scores", "classes")]
        for box, score, kind in zip(*columns, strict=True):
            if score >= sure:
                colour = ("tab:red", "tab:blue", "tab:green")[kind]
                width, height = box[2:] - box[:2]
                axis.add_patch(patches.Rectangle(box[:2], width, height, fill=False, color=colour))
    figure.suptitle("Cells found: red cells (red), white cells (blue), platelets (green)")
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Find blood cells in pictures.")
    parser.add_argument("path", help="the BCCD data set, a zip file")
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--plot", metavar="FILE.png", help="draw what was found (needs matplotlib)")
    arguments = parser.parse_args()
    main(**vars(arguments))

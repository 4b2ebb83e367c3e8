import numpy as np

import chainrule as cr
from chainrule import nn
from chainrule.nn.summary import size_text


class Net(nn.Module):
    def __init__(self):
        self.embed = nn.Embedding(1000, 4)
        self.body = [nn.Residual(nn.Linear(4, 4), nn.ReLU()), nn.Dropout(0.5)]
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 1000, bias=False)
        self.spare = nn.ModuleList([nn.Linear(1, 1)])
        self.head.weight = self.embed.weight
        self.norm.requires_grad_(False)

    def forward(self, index):
        x = self.embed(index)
        for part in self.body:
            x = part(x)
        return self.head(self.norm(x)), x


GOLDEN = """\
path            layer        output             parameters                count   size
(model)         Net          (3, 1000), (3, 4)
embed           Embedding    (3, 4)             weight (1000, 4)          4,000  16 kB
body.0          Residual     (3, 4)
body.0.inner    Sequential   (3, 4)
body.0.inner.0  Linear       (3, 4)             weight (4, 4), bias (4,)     20   80 B
body.0.inner.1  ReLU         (3, 4)
body.1          Dropout      (3, 4)
norm            BatchNorm1d  (3, 4)             weight (4,), bias (4,)        8   32 B
head            Linear       (3, 1000)          weight = embed.weight
spare           ModuleList
spare.0         Linear                          weight (1, 1), bias (1,)      2    8 B
4,030 parameters (4,022 trained, 8 frozen), 16.1 kB, buffers 40 B"""


def test_the_table():
    assert str(nn.summary(Net(), cr.tensor([1, 2, 3]))) == GOLDEN


def test_without_input_there_is_no_output_column():
    table = str(nn.summary(nn.Sequential(nn.Linear(2, 2))))
    assert table == (
        "path     layer       parameters                count  size\n"
        "(model)  Sequential\n"
        "0        Linear      weight (2, 2), bias (2,)      6  24 B\n"
        "6 parameters, 24 B"
    )
    assert repr(nn.summary(nn.ReLU())) == "path     layer\n(model)  ReLU\n0 parameters, 0 B"


def test_totals_agree_with_the_model():
    net = Net()
    table = nn.summary(net)
    assert table.count == net.parameter_count() and table.trained == net.parameter_count(trainable_only=True)
    assert table.parameter_bytes == sum(p.size * p.dtype.itemsize for p in net.parameters())
    assert [row.path for row in table.rows] == [path for path, _ in net.named_modules()]


def test_the_model_stays_as_it_was():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    before = {k: x.tolist() for k, x in model.state_dict().items()}
    count = int(model[2].generator.count)
    nn.summary(model, (8, 3))
    nn.summary(model, cr.tensor(np.ones((8, 3), "float32")))
    assert {k: x.tolist() for k, x in model.state_dict().items()} == before
    assert model.training and model[1].training and int(model[2].generator.count) == count
    assert "forward" not in vars(model) and model[0].path == ""


def test_a_shape_computes_nothing():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    assert nn.summary(model, (10**9, 3)).rows[-1].output == "(1000000000, 4)"


def test_shapes_are_of_the_dtype_of_the_model():
    assert nn.summary(nn.Linear(3, 4).to("float64"), (2, 3)).rows[0].output == "(2, 4)"


def test_a_module_called_twice_shows_its_first_output():
    layer = nn.Linear(3, 3)
    table = nn.summary(nn.Sequential(layer, layer), (2, 3))
    assert [row.path for row in table.rows] == ["", "0"] and table.rows[1].output == "(2, 3)"


def test_several_inputs():
    assert nn.summary(nn.Bilinear(2, 3, 4), (5, 2), (5, 3)).rows[0].output == "(5, 4)"


def test_sizes_as_text():
    given = [0, 999, 1000, 1499, 999_499, 999_500, 2_500_000, 3 * 10**9, 7 * 10**15]
    expected = ["0 B", "999 B", "1 kB", "1.5 kB", "999 kB", "1 MB", "2.5 MB", "3 GB", "7e+03 TB"]
    assert [size_text(n) for n in given] == expected

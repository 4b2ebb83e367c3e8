"""The network of examples/by_hand.py explained: the story of each layer, why a gradient is what it is, and a web page.

Two inputs, two hidden and two output units, sigmoids, half the squared error; one step of gradient descent at a rate of
0.5. Every number that the hand computes there stands in the story of a layer here: weighted sum, activation, slope,
error, weight gradient, update.

    python examples/explain_by_hand.py
    python examples/explain_by_hand.py --html step.html
"""

import argparse
from pathlib import Path

import chainrule as cr
from chainrule import nn, optim
from chainrule.explanation import Explanation, explain
from chainrule.explanation.page import write_page

INPUT, TARGET, RATE = [0.05, 0.10], [0.01, 0.99], 0.5
WEIGHTS = {
    "0.weight": [[0.15, 0.20], [0.25, 0.30]],  # a row a unit
    "0.bias": [0.35, 0.35],
    "2.weight": [[0.40, 0.45], [0.50, 0.55]],
    "2.bias": [0.60, 0.60],
}
ASKED = "0.weight[1, 0]"


def half_squared_error(y: cr.Tensor, target: cr.Tensor) -> cr.Tensor:
    return cr.sum((target - y) ** 2) / 2


def explained() -> Explanation:
    """One step, explained in float64, as the hand computes."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid(), nn.Linear(2, 2), nn.Sigmoid()).to(cr.float64)
    model.assign({name: cr.tensor(values, dtype=cr.float64) for name, values in WEIGHTS.items()})
    x, target = cr.tensor([INPUT], dtype=cr.float64), cr.tensor([TARGET], dtype=cr.float64)
    return explain(model, x, target, loss=half_squared_error, optimizer=optim.SGD(lr=RATE))


def print_stories(explanation: Explanation) -> None:
    for layer in explanation.layers:
        if layer.story is not None and layer.story.kind == "neurons":
            print(f"\n{layer.path} {layer.layer}")
            for term in layer.story.terms:
                numbers = "  ".join(f"{number:12.9f}" for number in term.value.reshape(-1))
                print(f"  {term.name:17}{numbers:56}  {term.formula}")


def main(html: str | None = None) -> Explanation:
    explanation = explained()
    explanation.show()
    print_stories(explanation)
    print(f"\nwhy {ASKED}")
    explanation.why(ASKED, depth=6).show()
    if html is not None:
        write_page(explanation.to_dict(), Path(html))
        print(f"\nwritten: {html}")
    return explanation


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The textbook's 2-2-2 network, explained.")
    parser.add_argument("--html", help="write the explanation to this file, as a page to step through")
    main(parser.parse_args().html)

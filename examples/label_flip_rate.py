"""
Does W x decide, or b?
======================

A network's logits are exactly ``W x + b``. This trains classifiers, then lets ``W x`` alone and b
alone decide, and counts how often the predicted label flips: Tables 1 to 4 of Li et al. 2023, with
the columns for ``W x`` that they leave out.

    python examples/label_flip_rate.py                                        # LeNets on MNIST
    python examples/label_flip_rate.py --dataset cifar10 --model resnet18     # on a GPU, if any
    python examples/label_flip_rate.py --dataset imagenet --folder val --model resnet50

Weights are kept in the user's cache after every epoch: what is interrupted goes on from there, and
what is finished is not trained again. The split depends on how the input is normalised, so two
normalisations stand side by side, and a third row moves the second one into the network: the same
predictions from raw pixels, split elsewhere.
"""

import argparse
import json
import os
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from ptsne import classifiers, datasets
from ptsne.datasets.loading import cache_folder
from ptsne.decomposition import label_flip_rate

MODELS = {"mnist": ("LeNet300100", "LeNet5"), "cifar10": ("resnet18",), "imagenet": ("resnet50",)}
INPUTS = {"unit": "0 to 1", "standard": "mean/std", "inside": "0 to 1, mean/std inside"}


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; its name in the cache tells all of it."""

    dataset: str
    model: str
    normalization: str = "unit"
    bias: bool = True
    epochs: int = 50
    rows: int | None = None
    seed: int = 0
    batch_size: int = 128

    @property
    def file_name(self):
        return "-".join(map(str, asdict(self).values())) + ".pt"

    @property
    def optimizer(self):
        """Settings of SGD: the usual ones of each data set."""
        is_small = self.dataset == "mnist"
        return {
            "lr": 0.05 if is_small else 0.1,
            "momentum": 0.9,
            "nesterov": True,
            "weight_decay": 0.0 if is_small else 5e-4,
        }


# %%
# Pictures: from 0 to 1, or with the mean and standard deviation of each training channel.


def pictures(dataset, split, rows=None):
    """Pictures (N, C, H, W) from 0 to 1, and their classes."""
    loaded = datasets.load(dataset, split=split)
    images = torch.from_numpy(loaded.images[:rows])
    images = images[:, None] if images.dim() == 3 else images.permute(0, 3, 1, 2)
    return images.contiguous(), torch.from_numpy(loaded.y[:rows])


def channel_statistics(dataset):
    images, _ = pictures(dataset, "train")
    return images.mean((0, 2, 3)), images.std((0, 2, 3))


class Normalized(nn.Module):
    """A network of normalised pictures as one of raw pictures."""

    def __init__(self, network, mean, std):
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("std", std[:, None, None])

    def forward(self, x):
        return self.network((x - self.mean) / self.std)


# %%
# Training: SGD with momentum and a cosine, one permutation of the rows per epoch.


def new_network(recipe):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return getattr(classifiers, recipe.model)(bias=recipe.bias)


def trained_network(recipe, device="cpu", cache=None):
    """A network from the cache, trained from where it was left."""
    path = Path(cache or cache_folder() / "networks") / recipe.file_name
    path.parent.mkdir(parents=True, exist_ok=True)
    network = new_network(recipe).to(device)
    optimizer = torch.optim.SGD(network.parameters(), **recipe.optimizer)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs)
    state = {"network": network, "optimizer": optimizer, "schedule": schedule}
    done = restore(path, state, device)
    if done < recipe.epochs:
        rows = [tensor.to(device) for tensor in pictures(recipe.dataset, "train", recipe.rows)]
        model = prepared(network, recipe).to(device)
        bar = tqdm(range(done, recipe.epochs), recipe.model, recipe.epochs, initial=done)
        for epoch in bar:
            loss = train_epoch(model.train(), optimizer, rows, recipe, epoch)
            schedule.step()
            store(path, state, epoch + 1)
            bar.set_postfix(loss=f"{loss:.4f}")
    return network.eval()


def prepared(network, recipe):
    """The network of raw pictures that is trained."""
    if recipe.normalization == "unit":
        return network
    return Normalized(network, *channel_statistics(recipe.dataset))


def train_epoch(network, optimizer, rows, recipe, epoch):
    """One pass over all rows (x, y); the mean loss."""
    x, y = rows
    generator = torch.Generator().manual_seed(1000 * recipe.seed + epoch)
    order = torch.randperm(len(x), generator=generator)
    total = torch.zeros((), device=x.device)
    for chosen in order.to(x.device).split(recipe.batch_size):
        batch = x[chosen]
        if recipe.dataset != "mnist":
            batch = augmented(batch, generator)
        loss = F.cross_entropy(network(batch), y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(chosen)
    return total.item() / len(x)


def augmented(x, generator):
    """Move each picture by up to 4 pixels and flip every second one."""
    n, _, height, width = x.shape
    padded = F.pad(x, (4, 4, 4, 4))
    top, left = torch.randint(9, (2, n, 1), generator=generator).to(x.device)
    row, column = (torch.arange(size, device=x.device) for size in (height, width))
    is_flipped = (torch.rand(n, 1, generator=generator) < 0.5).to(x.device)
    column = torch.where(is_flipped, width - 1 - column, column)
    picture = torch.arange(n, device=x.device)[:, None, None]
    cut = padded[picture, :, (top + row)[:, :, None], (left + column)[:, None, :]]  # (N, H, W, C)
    return cut.permute(0, 3, 1, 2).contiguous()


def store(path, state, epoch):
    """Replace the file in one step, so that an interruption leaves the old one whole."""
    part = path.with_suffix(".part")
    contents = {name: thing.state_dict() for name, thing in state.items()}
    torch.save({"epoch": epoch, **contents}, part)
    part.replace(path)


def restore(path, state, device):
    """Take up what the file holds; the epochs done."""
    if not path.exists():
        return 0
    stored = torch.load(path, map_location=device, weights_only=True)
    for name, thing in state.items():
        thing.load_state_dict(stored[name])
    return stored["epoch"]


# %%
# The study: who decides?


def study(recipe, device, cache):
    """Rows of the table for one network."""
    network = trained_network(recipe, device, cache)
    x, y = pictures(recipe.dataset, "test", recipe.rows)
    mean, std = channel_statistics(recipe.dataset)
    splits = {"unit": (network, x)}
    if recipe.normalization == "standard":
        shifted = (x - mean[:, None, None]) / std[:, None, None]
        inside = Normalized(network, mean, std).to(device).eval()
        splits = {"standard": (network, shifted), "inside": (inside, x)}
    for name, (model, inputs) in splits.items():
        rates = label_flip_rate(model, inputs, y, progress=True)
        yield {**asdict(recipe), "input": INPUTS[name], **asdict(rates)}


def imagenet_study(model, folder, rows, device):
    """The same for torchvision's pretrained networks and a folder of pictures per class."""
    try:
        torchvision = import_module("torchvision")
    except ImportError as error:
        raise SystemExit("the ImageNet study needs torchvision: pip install torchvision") from error
    weights = torchvision.models.get_model_weights(model).DEFAULT
    network = torchvision.models.get_model(model, weights=weights).to(device).eval()
    data = torchvision.datasets.ImageFolder(folder, weights.transforms())
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(data), generator=generator)[:rows]
    loader = torch.utils.data.DataLoader(
        torch.utils.data.Subset(data, chosen.tolist()), batch_size=32, num_workers=os.cpu_count()
    )
    rates = label_flip_rate(network, loader, progress=True)
    yield {"dataset": "imagenet", "model": model, "input": INPUTS["standard"], **asdict(rates)}


def print_table(table):
    print(f"{'':38}accuracy in %           label flips in %")
    print(f"{'network':13}{'input':25}{'F':>7}{'W x':>8}{'b':>8}{'W x':>9}{'b':>8}{'rows':>9}")
    for row in table:
        shares = ("accuracy", "accuracy_wx", "accuracy_b", "flip_rate_wx", "flip_rate_b")
        numbers = "".join(f"{100 * row[name]:8.2f}" for name in shares)
        print(f"{row['model']:13}{row['input']:24}{numbers}{row['n']:9,}")


def write(path, table, device):
    """Add the rows to those that the file has of other networks."""
    what = ("dataset", "model", "input", "bias", "epochs", "rows")
    new = {tuple(row.get(name) for name in what): row for row in table}
    old = json.loads(path.read_text())["rows"] if path.exists() else []
    old = {tuple(row.get(name) for name in what): row for row in old}
    report = {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": device}
    path.write_text(json.dumps({**report, "rows": list({**old, **new}.values())}, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", choices=MODELS, default="mnist")
    parser.add_argument("--model", nargs="+", help="names in ptsne.classifiers or torchvision")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--no-bias", action="store_false", dest="bias", help="bias-free training")
    parser.add_argument("--rows", type=int, help="use only so many pictures, for a quick look")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cache", type=Path, help="folder for weights")
    parser.add_argument("--folder", type=Path, help="ImageNet pictures, one folder per class")
    parser.add_argument("--output", type=Path, help="JSON file to add the table to")
    options = parser.parse_args()

    table = []
    for model in options.model or MODELS[options.dataset]:
        if options.dataset == "imagenet":
            if options.folder is None:
                parser.error("--dataset imagenet needs --folder")
            table += imagenet_study(model, options.folder, options.rows, options.device)
            continue
        for normalization in ("unit", "standard"):
            how = normalization, options.bias, options.epochs, options.rows
            table += study(Recipe(options.dataset, model, *how), options.device, options.cache)

    print_table(table)
    if options.output:
        write(options.output, table, options.device)
    first = table[0]
    print(
        f"Without b, {first['model']} changes its mind on {first['flip_rate_wx']:.1%} of "
        f"{first['n']:,} pictures; without W x on {first['flip_rate_b']:.1%}."
    )


if __name__ == "__main__":
    main()

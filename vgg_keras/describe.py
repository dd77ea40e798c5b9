"""Table 1 as the paper draws it, with the layers, parameters and multiply-adds of its nets."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from vgg_keras.nets import configuration_rows, get_net, weight_layers


def describe_net(name: str, num_classes: int, crop_size: int, width: float) -> dict:
    """Returns one net as a JSON object with totals and layers."""
    net = get_net(name)
    layers = weight_layers(net, num_classes, crop_size, width)
    return {
        "net": net.name,
        "weight_layers": net.weight_layers,
        "parameters": sum(layer.parameters for layer in layers),
        "multiply_adds": sum(layer.multiply_adds for layer in layers),
        "crop_size": crop_size,
        "num_classes": num_classes,
        "width": width,
        "layers": [
            {
                "name": layer.name,
                "kernel": layer.kernel,
                "inputs": layer.inputs,
                "outputs": layer.outputs,
                "receptive_field": layer.receptive_field,
                "parameters": layer.parameters,
                "multiply_adds": layer.multiply_adds,
            }
            for layer in layers
        ],
    }


def configuration_table(
    names: Sequence[str], num_classes: int, crop_size: int, width: float
) -> Table:
    """Returns Table 1 with one column per net, one row per block, and totals below."""
    nets = [get_net(name) for name in names]
    depths, *rows = configuration_rows(nets, num_classes, crop_size, width)
    table = Table(title="ConvNet configurations (Table 1)", show_lines=True)
    for net, depth in zip(nets, depths, strict=True):
        table.add_column(f"{net.name}\n{depth}", justify="center")
    middle = len(nets) // 2  # the column that shows a cell that all nets share
    for row in rows:
        table.add_row(*(row if len(row) > 1 else ("",) * middle + row))
    layers = [weight_layers(net, num_classes, crop_size, width) for net in nets]
    for total in ("parameters", "multiply_adds"):
        sums = (sum(getattr(layer, total) for layer in own) for own in layers)
        table.add_row(*(f"{total.replace('_', '-')}\n{value:,}" for value in sums))
    return table


def layer_table(name: str, num_classes: int, crop_size: int, width: float) -> Table:
    """Returns the layers of a net with receptive fields (§2.3), parameters and multiply-adds."""
    table = Table(title=f"Net {name}")
    table.add_column("layer")
    columns = ("kernel", "channels", "receptive field", "parameters", "multiply-adds")
    for column in columns:
        table.add_column(column, justify="right")
    layers = weight_layers(get_net(name), num_classes, crop_size, width)
    for layer in layers:
        table.add_row(
            layer.name,
            f"{layer.kernel}x{layer.kernel}",
            str(layer.outputs),
            str(layer.receptive_field),
            f"{layer.parameters:,}",
            f"{layer.multiply_adds:,}",
            end_section=layer is layers[-1],
        )
    parameters, adds = (sum(getattr(l, f) for l in layers) for f in ("parameters", "multiply_adds"))
    table.add_row("in all", "", "", "", f"{parameters:,}", f"{adds:,}")
    return table

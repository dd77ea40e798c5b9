"""Table 1 as the paper draws it, with what follows from it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from vgg_keras.nets import FC_NAMES, Layer, Net, get_net, weight_layers


def describe_net(name: str, num_classes: int, crop_size: int, width: float) -> dict:
    """One net as a JSON object: totals and layers."""
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
    """Table 1: a column a net, a row a block, and totals below."""
    nets = [get_net(name) for name in names]
    layers = [weight_layers(net, num_classes, crop_size, width) for net in nets]
    table = Table(title="ConvNet configurations (Table 1)", show_lines=True)
    for net in nets:
        table.add_column(f"{net.name}\n{net.weight_layers} weight layers", justify="center")
    _merged(table, f"input ({crop_size} x {crop_size} RGB image)")
    for block in range(1, 6):
        table.add_row(
            *(
                _block(net, table_layers, block)
                for net, table_layers in zip(nets, layers, strict=True)
            )
        )
        _merged(table, "maxpool")
    for fc in layers[0][-3:]:
        _merged(table, f"FC-{fc.outputs}")
    _merged(table, "soft-max")
    totals = (
        ("parameters", lambda layer: layer.parameters),
        ("multiply-adds", lambda layer: layer.multiply_adds),
    )
    for title, value in totals:
        table.add_row(*(f"{title}\n{sum(map(value, ls)):,}" for ls in layers))
    return table


def layer_table(name: str, num_classes: int, crop_size: int, width: float) -> Table:
    """A net's layers with receptive fields (§2.3), parameters and multiply-adds."""
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


def _merged(table: Table, text: str) -> None:
    """A row with its text in the middle column, for what all nets share."""
    row = [""] * len(table.columns)
    row[len(row) // 2] = text
    table.add_row(*row)


def _block(net: Net, layers: Sequence[Layer], block: int) -> str:
    """The cell of a block: conv<receptive field>-<channels>, one line a layer."""
    lines = []
    for layer in layers:
        if layer.name not in FC_NAMES and layer.name.startswith(f"block{block}_"):
            lines.append(f"conv{layer.kernel}-{layer.outputs}")
            if net.lrn and len(lines) == 1 and block == 1:
                lines.append("LRN")
    return "\n".join(lines)

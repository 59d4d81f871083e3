"""Options that several verbs have."""

import click

device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
backend_option = click.option(
    "--backend",
    type=click.Choice(["auto", "numba", "triton", "torch"]),
    default="auto",
    show_default=True,
    help="What computes the neurons; auto is numba on a CPU and Triton on CUDA where they are installed, else torch.",
)
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting of the recipe."
)
checkpoint_option = click.option(
    "--checkpoint-every",
    default="10s",
    show_default=True,
    metavar="TIME|STEPS",
    help="Least time between checkpoints (30s, 10m), or a number of steps.",
)
shards_option = click.option(
    "--shards", required=True, metavar="PATH|ADDRESS", help="Folder of the shard set, or where it is published."
)


def whole_numbers(text: str, option: str) -> list[int]:
    """Read numbers separated by commas."""
    if not all(number.strip().isdigit() for number in text.split(",")):
        raise click.BadParameter(f"{text!r}: expected whole numbers separated by commas", param_hint=option)
    return [int(number) for number in text.split(",")]

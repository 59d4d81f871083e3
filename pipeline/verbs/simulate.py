"""The verb `simulate`."""

from __future__ import annotations

from pathlib import Path

import click

from spikebridge.pipeline.ui.terminal import (
    json_option,
    overwrite_option,
    parse_sensor,
    path_type,
    print_result,
    progress_bar,
    quiet_option,
)


@click.command()
@click.argument("name", type=click.Choice(["digits"]), default="digits")
@click.option("--out", type=path_type(), required=True, help="Folder for events/ and static/.")
@click.option("--images", type=path_type(), help="Simulate recordings of these class folders of images instead.")
@click.option("--sensor", metavar="WxH", help="Sensor in pixels, such as 346x260  [default: 34x34, or the camera's]")
@click.option("--camera", type=path_type(), help="Profile that calibrate made: its camera and movement for N-MNIST's.")
@click.option("--seed", default=0, show_default=True, help="Seed of the simulation.")
@overwrite_option
@quiet_option
@json_option
def simulate(
    name: str,
    out: Path,
    images: Path | None,
    sensor: str | None,
    camera: Path | None,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Simulate event recordings of static images.

    Takes the built-in digits, or your own images. The recordings are SIMULATED, and everything made from them says so.

    \b
    Examples:
      spikebridge simulate digits --out data/raw/digits
      spikebridge simulate --images photos --sensor 64x48 --out data/raw/photos
      spikebridge simulate --images photos --sensor 346x260 --out data/raw/davis
      spikebridge simulate --images photos --camera profile.toml --out data/raw/fitted
    """
    from spikebridge.pipeline.simulation.write import write_digits, write_images

    if sensor and camera:
        raise click.UsageError("--sensor and --camera: the profile has the sensor; leave --sensor out.")
    fitted = None
    if camera:
        from spikebridge.pipeline.simulation.fitted import read_camera

        fitted = read_camera(camera)
    settings = fitted.settings if fitted else None
    size = parse_sensor(sensor) or (34, 34)
    if settings:
        size = (settings.sensor_width_px, settings.sensor_height_px)
    progress = lambda items: progress_bar(items, desc="simulate")  # noqa: E731
    if images is None and size != (34, 34):
        raise click.BadParameter(
            "the built-in digits are recorded on 34x34 pixels; use --images",
            param_hint="--camera" if camera else "--sensor",
        )
    if images is None:
        made = write_digits(out, seed=seed, settings=settings, progress=progress, overwrite=overwrite)
    else:
        made = write_images(
            images, out, sensor=size, seed=seed, settings=settings, progress=progress, overwrite=overwrite
        )
    text = f"{made['recordings']:,} simulated recordings in {out}" + (" (up to date)" if made["up_to_date"] else "")
    if fitted and fitted.undecided:
        text += f"\n  the profile does not decide {', '.join(fitted.undecided)}: its guess is taken"
    if fitted and fitted.cells:
        text += (
            f"\n  the profile was fitted to {fitted.cells[0]}x{fitted.cells[1]} cells of the sensor, each as one "
            "pixel: expect another number of events than the camera's"
        )
    kind = "folders" if images else name
    step: list[str | Path] = ["preprocess", "--dataset", kind, "--events", out, "--static", out, "--out", "SHARDS"]
    print_result({**made, "out": str(out)}, text, as_json=as_json, then=step)

"""`queue` and `presets`."""

from typing import TYPE_CHECKING

from dartboard.cli import output
from dartboard.cli.options import Json, Url, connect

if TYPE_CHECKING:
    from rich.console import Console

    from dartboard.models import Queue


def queue(as_json: Json = False, url: Url = None) -> None:
    """Show who waits and why, who runs, and what the cluster holds.

    With --json: the whole overview.
    """
    with connect(url) as client:
        found = client.queue()
    if as_json:
        output.print_json(found)
    else:
        _print_queue(found, output.stdout())


def presets(as_json: Json = False, url: Url = None) -> None:
    """List the settings worth starting from.

    With --json: an array of presets with their full specs.
    """
    with connect(url) as client:
        found = client.presets()
    if as_json:
        output.print_json(found)
        return
    made = output.table("preset", "of a", "what it is")
    for preset in found:
        made.add_row(preset.name, preset.kind, preset.summary)
    output.stdout().print(made)
    output.stderr().print(f"Submit one: dartboard submit --preset {found[0].name} --follow")


def _print_queue(found: "Queue", console: "Console") -> None:
    console.print(", ".join(f"{count} {status}" for status, count in found.counts.items()))
    cluster = found.cluster
    if found.dispatchers:
        nodes = "1 node" if len(cluster.nodes) == 1 else f"{len(cluster.nodes)} nodes"
        console.print(
            f"cluster: {nodes} with {cluster.cpus:g} CPUs and {cluster.gpus:g} GPUs; running "
            f"searches need {cluster.reserved_cpus:g} CPUs and {cluster.reserved_gpus:g} GPUs"
        )
        if cluster.custom:
            others = (
                f"{amount:g} {name}, of which they need {cluster.reserved_custom.get(name, 0):g}"
                for name, amount in cluster.custom.items()
            )
            console.print(f"besides: {'; '.join(others)}", soft_wrap=True, markup=False)
    else:
        console.print("no dispatcher is running: nothing starts. `dartboard up` starts one")
    if found.running:
        running = output.table(
            "running", "owner", "name", "attempt", "CPUs", "GPUs", "besides", "epochs", "for"
        )
        for each in found.running:
            done = sum(trial.epoch for trial in each.trials)
            running.add_row(
                str(each.search_id),
                each.owner,
                each.name or "-",
                str(each.attempt),
                f"{each.cpus:g}",
                f"{each.gpus:g}",
                ", ".join(f"{amount:g} {name}" for name, amount in each.custom.items()) or "-",
                f"{done}/{sum(trial.epochs for trial in each.trials)}",
                output.age(each.claimed_at or each.started_at),
            )
        console.print()
        console.print(running)
    if found.waiting:
        waiting = output.table(
            "waiting", "owner", "name", "place", "priority", "why", "starts in", "age"
        )
        for line in found.waiting:
            waiting.add_row(
                str(line.search_id),
                line.owner,
                line.name or "-",
                str(line.position),
                str(line.priority),
                line.why,
                output.until(line.estimated_start),
                output.age(line.created_at),
            )
        console.print()
        console.print(waiting)

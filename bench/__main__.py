"""`python -m bench cpu | gpu | host | instances | cluster | scaling | memory | startup | report |
statistics | doctor`."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import cluster, commands, cpu, doctor, gpu, host, instances, report, scaling, statistics


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    subparsers = parser.add_subparsers(required=True, metavar="command")

    command = subparsers.add_parser("cpu", help="ms per pair on one core, against the rivals")
    command.add_argument("--pairs", type=int, default=48)
    command.add_argument("--repeat", type=int, default=5)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--writer", choices=["pillow", "opencv", "both"], default="both")
    command.add_argument("--out", type=Path, default=Path("bench/results/cpu.json"))
    command.set_defaults(
        run=lambda a: cpu.run(pairs=a.pairs, repeat=a.repeat, seed=a.seed, writer=a.writer, out=a.out)
    )

    command = subparsers.add_parser("gpu", help="the CUDA engine: kernels, inflate, whole splits, rivals")
    gpu.add_arguments(command)
    command.set_defaults(run=lambda a: gpu.run(gpu.Options.of(a)))

    command = subparsers.add_parser("host", help="the host's side of the CUDA engine, without a device")
    command.add_argument("--pairs", type=int, default=4038)
    command.add_argument("--repeat", type=int, default=7)
    command.add_argument("--out", type=Path, default=Path("bench/results/host.json"))
    command.set_defaults(run=lambda a: host.run(pairs=a.pairs, repeat=a.repeat, out=a.out))

    command = subparsers.add_parser("instances", help="ms per image of 25 masks on one core; memory")
    command.add_argument("--images", type=int, default=500)
    command.add_argument("--repeat", type=int, default=3)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--cache", type=Path, default=None, help="keep the drawn images in this folder")
    command.add_argument("--out", type=Path, default=Path("bench/results/instances.json"))
    command.set_defaults(
        run=lambda a: instances.run(images=a.images, repeat=a.repeat, seed=a.seed, cache=a.cache, out=a.out)
    )

    command = subparsers.add_parser(
        "cluster", help="what a Dask cluster costs per shard, image and in memory"
    )
    command.add_argument("--shards", type=int, default=100_000)
    command.add_argument("--window", type=int, default=32)
    command.add_argument("--repeat", type=int, default=3)
    command.add_argument("--out", type=Path, default=Path("bench/results/cluster.json"))
    command.set_defaults(
        run=lambda a: cluster.run(shards=a.shards, window=a.window, repeat=a.repeat, out=a.out)
    )

    command = subparsers.add_parser("scaling", help="unit costs, and a simulation of a billion pairs")
    command.add_argument("--images-per-s", type=float, default=20_000.0, help="of one worker; an assumption")
    command.add_argument("--workers", type=int, default=1000)
    command.add_argument("--task-s", type=float, default=None, help="default: as bench cluster measured it")
    command.add_argument("--out", type=Path, default=Path("bench/results/scaling.json"))
    command.set_defaults(
        run=lambda a: scaling.run(task_s=a.task_s, images_per_s=a.images_per_s, workers=a.workers, out=a.out)
    )

    command = subparsers.add_parser("memory", help="peak memory of the whole command on a large split")
    command.add_argument("--pairs", type=int, default=4000)
    command.add_argument("--out", type=Path, default=None)
    command.set_defaults(run=lambda a: commands.memory(pairs=a.pairs, out=a.out))

    command = subparsers.add_parser("startup", help="wall time of the whole command on little work")
    command.add_argument("--runs", type=int, default=7)
    command.add_argument("--out", type=Path, default=None)
    command.set_defaults(run=lambda a: commands.startup(runs=a.runs, out=a.out))

    command = subparsers.add_parser("report", help="intervals, compare and leaderboard of large run folders")
    command.add_argument("--images", type=int, nargs="+", default=[4038, 100_000])
    command.add_argument("--repeat", type=int, default=3)
    command.add_argument("--out", type=Path, default=Path("bench/results/report.json"))
    command.set_defaults(run=lambda a: report.run(sizes=a.images, repeat=a.repeat, out=a.out))

    command = subparsers.add_parser("statistics", help="coverage of intervals, false alarms, rank ranges")
    command.add_argument("--repetitions", type=int, default=2000)
    command.add_argument("--out", type=Path, default=Path("bench/results/statistics.json"))
    command.add_argument("--only", nargs="+", choices=statistics.GROUPS, default=[], help="keep other rows")
    command.set_defaults(run=lambda a: statistics.run(repetitions=a.repetitions, only=a.only, out=a.out))

    command = subparsers.add_parser("doctor", help="mix-ups that must be named, bad models that must not be")
    command.add_argument("--seeds", type=int, default=60)
    command.add_argument("--first", type=int, default=0, help="the first of them")
    command.add_argument("--out", type=Path, default=Path("bench/results/doctor.json"))
    command.set_defaults(run=lambda a: doctor.run(seeds=a.seeds, first=a.first, out=a.out))

    arguments = parser.parse_args()
    return int(arguments.run(arguments))


if __name__ == "__main__":
    raise SystemExit(main())

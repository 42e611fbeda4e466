"""Benchmarks of quality and speed, with their records in `results/` and a log of findings in `LOG.md`.

harness/      what they share: the catalogue, methods, metrics, cached vectors, records, tables and the report
paper/        a benchmark of the paper each: NAME (protocol), NAME_data (reader), NAME_world (generated stand-in)
ours/         our own benchmarks: photographs, words, find
engineering/  speed, memory, crash safety and scale; each runs as `python -m steersearch.benchmarks.engineering.NAME`
baselines/    the methods that SteerViT is compared with, a file per family

A new benchmark is a module with `create(options) -> Benchmark` (harness/benchmark.py) and a row in
harness/catalogue.py; a new baseline is a module with `load(card, weights, device)` and a row in baselines/cards.py.
"""

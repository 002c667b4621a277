"""Fuzzing of everything that reads what others made: profiles, traces, ELF files, tables and answers of targets.

    make fuzz                     a million inputs, spread over all targets
    make fuzz FUZZ=10000          so many
    .venv/bin/python -m tests.fuzz --only elf,cfi --seed 7 100000

Inputs are made from valid ones by mutators that know their structure (`mutate`), each from the seed and its number
alone. Worker processes run them (`worker`): each input must end in success or in an error of ours, within a second of
CPU time and 200 MB. What does not is a finding, and is saved as a file that `--replay FILE` runs again. Those that were
mended stay in tests/corpus, which `make test` replays.
"""

"""What is made of the finished runs of an experiment: one file each, a function `analyse(runs, out, **options)`.

It gets the runs (`experiments.finished.FinishedRun`), writes pictures, tables and sentences through `out`
(`experiments.analysing.Output`), and returns numbers: a table with some of the columns of
`experiments.analysing.COLUMNS`. What several of them need is in files that begin with an underscore: no analysis
imports from another one.
"""

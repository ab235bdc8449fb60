"""The report: a run folder of Parquet tables, written part by part and read by people."""

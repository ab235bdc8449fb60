"""Writes docs/schema.md from `gpu_eval.run_folder.schema`: `python docs/make_schema.py`."""

from __future__ import annotations

from pathlib import Path

from gpu_eval.run_folder import schema

TARGET = Path(__file__).with_name("schema.md")

if __name__ == "__main__":
    TARGET.write_text(schema.markdown(), encoding="utf-8")
    print(f"wrote {TARGET}")

#!/usr/bin/env python3
"""Writes testdata/manifest/types.parquet with pyarrow: every column type a manifest may meet.

Needs pyarrow. Usage: tools/manifest_fixture.py
"""

import datetime
import decimal
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

TARGET = pathlib.Path(__file__).parent.parent / "testdata" / "manifest" / "types.parquet"
STAMP = datetime.datetime(1969, 12, 31, 23, 59, 59, 250000)

table = pa.table(
    {
        "path": pa.array(["a.png", "b/c.dcm", "d e.nii.gz"], pa.large_string()),
        "modality": pa.array(["CT", None, "CT"]).dictionary_encode(),
        "small": pa.array([-1, None, 127], pa.int8()),
        "unsigned": pa.array([0, 2**32 - 1, None], pa.uint32()),
        "wide": pa.array([-(2**63), 2**63 - 1, None], pa.int64()),
        "unsigned_wide": pa.array([2**64 - 1, None, 1], pa.uint64()),
        "single": pa.array([0.1, float("nan"), None], pa.float32()),
        "double": pa.array([12.0, 0.1, float("inf")], pa.float64()),
        "truth": pa.array([True, False, None]),
        "day": pa.array([datetime.date(2024, 2, 29), None, datetime.date(1900, 3, 1)]),
        "time": pa.array([STAMP, None, datetime.datetime(2026, 1, 2, 3, 4, 5)], pa.timestamp("us")),
        "empty": pa.nulls(3, pa.string()),
        "list": pa.array([[1, 2], [], None], pa.list_(pa.int32())),
        "nested": pa.array([{"x": 1, "y": 2}] * 3),
        "amount": pa.array([decimal.Decimal("1.5"), None, decimal.Decimal("-0.05")], pa.decimal128(5, 2)),
        "large": pa.array([decimal.Decimal(10**37), decimal.Decimal(-(10**37)), None], pa.decimal128(38, 0)),
        "labels": pa.array([["mass", "effusion"], None, ["mass"]], pa.list_(pa.string())),
        "uuid": pa.array([bytes(range(16)), None, b"\xff" * 16], pa.binary(16)).cast(pa.uuid()),
        "code": pa.array([b"ab\0\0", None, b"abcd"], pa.binary(4)),
        "raw": pa.array([b"\x00\xff", None, b"\x01\x02"], pa.binary(2)),
        "text": pa.array(["\u00e4\u6587", "line\nbreak", '"quoted", too']),
    }
)
TARGET.parent.mkdir(parents=True, exist_ok=True)
pq.write_table(
    table,
    TARGET,
    row_group_size=2,
    compression="gzip",
    use_dictionary=["modality", "text"],
    write_statistics=False,
    store_schema=False,
)

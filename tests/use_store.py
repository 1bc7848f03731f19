"""An object store on loopback, as S3 is."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faceattr.inference import storage


@contextmanager
def s3() -> Iterator[str]:
    """A bucket, ``s3://bucket``, which this process and its children reach."""
    server = pytest.importorskip("moto.server", reason="the object store is moto's")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        import boto3

        boto3.client("s3").create_bucket(Bucket="bucket")
        storage._of_root.cache_clear()  # it may know the store of another test
        yield "s3://bucket"
    running.stop()


def upload(folder: Path, place: str) -> None:
    """All files of a folder, by the store's own client."""
    import boto3

    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            key = "/".join(filter(None, (prefix, path.relative_to(folder).as_posix())))
            boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=path.read_bytes())


def keys(bucket: str = "bucket") -> list[str]:
    """What is in the store."""
    import boto3

    found = boto3.client("s3").list_objects_v2(Bucket=bucket)
    return [one["Key"] for one in found.get("Contents", ())]

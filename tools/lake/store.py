"""SeaweedFS with S3 on the loopback, and its objects."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import time

import boto3
from botocore.config import Config

KEY, SECRET, BUCKET = "m3retkey", "m3retsecret", "lakes"


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    # The server opens a second port at +10000.
    return port if port + 10000 < 65536 else free_port()


class Store:
    """A server as a child process, which can be killed and started again on the same folder."""

    def __init__(self, weed, folder):
        self.weed, self.folder = weed, pathlib.Path(folder)
        self.ports = [free_port() for _ in range(4)]
        self.folder.mkdir(parents=True)
        identity = {"name": "m3ret", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        self.config = self.folder.parent / "s3.json"
        self.config.write_text(json.dumps({"identities": [identity]}))
        self.child = None

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.ports[3]}"

    def environment(self):
        return os.environ | {"AWS_ENDPOINT_URL": self.endpoint, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}

    def client(self):
        config = Config(retries={"max_attempts": 0}, connect_timeout=2, read_timeout=10)
        return boto3.client("s3", endpoint_url=self.endpoint, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1", config=config)

    def start(self):
        master, volume, filer, s3 = self.ports
        words = [self.weed, "-logtostderr=true", "server", f"-dir={self.folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-master.port={master}",
                 f"-volume.port={volume}", "-filer", f"-filer.port={filer}", "-s3", f"-s3.port={s3}", f"-s3.config={self.config}", "-volume.max=60",
                 "-master.volumeSizeLimitMB=1024", "-master.volumePreallocate=false", "-webdav=false", "-sftp=false"]
        log = open(self.folder.parent / "weed.log", "ab")
        self.child = subprocess.Popen(words, stdout=log, stderr=log)
        for _ in range(240):
            with contextlib.suppress(Exception):
                client = self.client()
                names = [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
                if BUCKET not in names:
                    client.create_bucket(Bucket=BUCKET)
                client.put_object(Bucket=BUCKET, Key="ready", Body=b"yes")
                return self
            time.sleep(0.25)
        raise SystemExit("the store did not start: " + (self.folder.parent / "weed.log").read_text()[-3000:])

    def kill(self):
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def objects(self, prefix):
        """The name and bytes of every object below a prefix."""
        client = self.client()
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix):
            for entry in page.get("Contents", []):
                yield entry["Key"], client.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read()

    def n_bytes(self, prefix):
        client = self.client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        sizes = [entry["Size"] for page in pages for entry in page.get("Contents", [])]
        return len(sizes), sum(sizes)

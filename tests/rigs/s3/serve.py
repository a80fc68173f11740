"""Starts moto's S3 for a test and ends with it.

    python3 serve.py --venv DIR --bucket NAME

Installs moto into DIR where it is not there yet; prints one line of JSON with
the port once the bucket is there; ends when its standard input does. Exit code
77 says that moto cannot be installed here.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from client import with_package  # noqa: E402

MOTO = "moto[server]==5.2.5"


def serve(bucket: str) -> None:
    # The class moved between versions; this module is where it has stayed.
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    scope = "Credential=a/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{bucket}", method="PUT")
    request.add_header("Authorization", f"AWS4-HMAC-SHA256 {scope}")
    # Whatever proxy is set for the world is none for loopback.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    direct.open(request, timeout=60).close()
    print(json.dumps({"port": port}), flush=True)
    sys.stdin.read()
    # Its threads would hold the process up.
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--venv", type=pathlib.Path, required=True)
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.bucket)
        return
    python = with_package(options.venv, MOTO)
    own = [os.path.abspath(__file__), "--serve", "--venv", str(options.venv), "--bucket", options.bucket]
    os.execv(python, [str(python), "-B", *own])


main()

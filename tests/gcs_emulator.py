"""Runs an emulator of Google Cloud Storage with the bucket `bucket`: `gcs_emulator.py PORT`.

It adds to gcp-storage-emulator what TensorStore and claims rely on: the generation of an object that is read, and
writing on the condition that an object has a generation (0 if it must not exist).
"""

import sys
from http import HTTPStatus
from http.server import HTTPServer

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects


def generation(storage, bucket, name):
    try:
        return storage.get_file_obj(bucket, name)["generation"]
    except NotFound:
        return "0"


def conditional(handler):
    def handle(request, response, storage, *args, **kwargs):
        data = request.data  # read even if it is not used, as the client expects
        name = request.params.get("object_id") or request.query.get("name", [None])[0] or data["meta"]["name"]
        (wanted,) = request.query.get("ifGenerationMatch", [None])
        if wanted not in (None, generation(storage, request.params["bucket_name"], name)):
            response.status = HTTPStatus.PRECONDITION_FAILED
        else:
            handler(request, response, storage, *args, **kwargs)

    return handle


def with_generation(handler):
    def handle(request, response, storage, *args, **kwargs):
        handler(request, response, storage, *args, **kwargs)
        response["x-goog-generation"] = generation(storage, request.params["bucket_name"], request.params["object_id"])

    return handle


objects.insert, objects.delete = conditional(objects.insert), conditional(objects.delete)
objects.download = with_generation(objects.download)

from gcp_storage_emulator.server import create_server  # noqa: E402, its table of handlers refers to those above

# gcsfs opens dozens of connections at once. Those that do not fit into the queue are tried again after seconds.
HTTPServer.request_queue_size = 128

if __name__ == "__main__":
    create_server("localhost", int(sys.argv[1]), in_memory=True, default_bucket="bucket").run()

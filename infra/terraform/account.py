#!/usr/bin/env python3
"""A moto server for the module's test:  account.py PORT

moto's own server but for one header. S3 answers a PutBucketLifecycleConfiguration with the size under which it moves
nothing; moto says it only when asked for the rules. Terraform's provider holds one against the other, and would wait three
minutes for them to agree, and fail.
"""

import os
import sys

# The managed policies of AWS, of which the function's role takes one.
os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"

from moto.s3.responses import S3Response  # noqa: E402
from moto.server import main  # noqa: E402

put = S3Response._bucket_response_put


def put_with_the_header(self, request, bucket_name, querystring):
    answer = put(self, request, bucket_name, querystring)
    if "lifecycle" in querystring and isinstance(answer, str):
        return 200, {"x-amz-transition-default-minimum-object-size": "all_storage_classes_128K"}, answer
    return answer


S3Response._bucket_response_put = put_with_the_header
main(["-H", "127.0.0.1", "-p", sys.argv[1]])

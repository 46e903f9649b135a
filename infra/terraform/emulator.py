#!/usr/bin/env python3
"""A moto server for the module's test:  emulator.py PORT

moto's own server, but that it gives back what it was given in two places where moto forgets a part, as AWS does not:

- a bucket's lifecycle rules. moto forgets a filter by size; Terraform's provider always puts one ("larger than 0 bytes")
  beside a prefix with a tag, and would wait for it to come back, three minutes, and fail.
- where a function writes its log. Every plan would set it anew.
"""

import os
import sys

# The managed policies of AWS, of which the function's role takes one.
os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"

from moto.awslambda.models import LambdaFunction  # noqa: E402
from moto.s3.responses import S3Response  # noqa: E402
from moto.server import main  # noqa: E402

SIZE = {"x-amz-transition-default-minimum-object-size": "all_storage_classes_128K"}

rules = {}
put = S3Response._bucket_response_put
get = S3Response.get_bucket_lifecycle


def put_and_keep(self, request, bucket_name, querystring):
    answer = put(self, request, bucket_name, querystring)
    # Only what moto did not refuse.
    if "lifecycle" in querystring:
        rules[bucket_name] = self.body
    return answer


def get_what_was_put(self):
    answer = get(self)
    # Where moto knows of rules, they are these: a refusal has been raised, and deleted rules are refused.
    return 200, dict(SIZE), rules.get(self.bucket_name, answer[2])


S3Response._bucket_response_put = put_and_keep
S3Response.get_bucket_lifecycle = get_what_was_put

make = LambdaFunction.__init__
tell = LambdaFunction.get_configuration


def make_and_keep(self, account_id, spec, *further, **named):
    self.logging_config = spec.get("LoggingConfig")
    make(self, account_id, spec, *further, **named)


def tell_all(self, *further, **named):
    return tell(self, *further, **named) | {"LoggingConfig": self.logging_config}


LambdaFunction.__init__ = make_and_keep
LambdaFunction.get_configuration = tell_all

main(["-H", "127.0.0.1", "-p", sys.argv[1]])

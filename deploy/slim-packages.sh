#!/bin/sh
# Remove what no container needs from the packages of a virtual environment: tests, C headers, Arrow's network
# protocol and cloud storage, and JavaScript for notebooks. The Dockerfile imports what could miss them afterwards.
set -eu

cd "$1"/lib/python3*/site-packages
rm -rf pandas/tests pyarrow/tests pyarrow/include pyarrow/src pydeck/nbextension torch/include torch/test \
    pyarrow/libarrow_flight.* pyarrow/_flight.* pyarrow/libarrow_s3.* pyarrow/_s3fs.*
find numpy -path '*/tests/*' -type f ! -name _natype.py -delete # numpy.testing imports that one

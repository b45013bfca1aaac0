# A container with every `oneformer` command, and what `oneformer jobs --executor docker` and `kubernetes` run.
#
#   docker build --tag oneformer .
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:$PWD" --workdir "$PWD" oneformer oneformer doctor
#
# The PyTorch that pip finds for Linux is the one for NVIDIA GPUs; it runs on processors too, and takes some gigabytes.
FROM python:3.11-slim

# Extras of the package, with commas between, such as automl,onnx,s3.
ARG EXTRAS=automl,onnx

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

WORKDIR /opt/oneformer
# First what changes seldom, so that a change of the code does not install it again.
COPY requirements.lock ./
RUN python -m pip install --requirement requirements.lock

COPY pyproject.toml README.md LICENSE NOTICE CHANGELOG.md ./
COPY src ./src
RUN python -m pip install --no-build-isolation --constraint requirements.lock ".[$EXTRAS]"

# It runs as whoever starts it, a user without an entry in the container: caches need a place that anybody may write to.
ENV HOME=/tmp USER=oneformer
WORKDIR /work
USER 1000:1000
CMD ["oneformer", "--help"]

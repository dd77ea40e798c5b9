# Training in a container, on a CPU or on NVIDIA GPUs:
#
#     docker build -t vgg .
#     docker build -t vgg --build-arg TENSORFLOW="tensorflow[and-cuda]" .
#     docker run --rm --gpus all -v "$PWD:/work" -v "$HOME/.keras:/root/.keras" vgg \
#         train --recipe small --net A --data folder:DIR --out runs/a
#
# TensorFlow brings the CUDA libraries with it, so that the base needs Python alone. The second
# volume keeps released nets. Files are written as root.
ARG BASE=python:3.12-slim
FROM ${BASE}
ARG TENSORFLOW=tensorflow

COPY . /opt/vgg_keras
RUN python3 -m pip install --no-cache-dir -c /opt/vgg_keras/constraints.txt \
        "${TENSORFLOW}" /opt/vgg_keras

WORKDIR /work
ENTRYPOINT ["vgg-keras"]
CMD ["--help"]

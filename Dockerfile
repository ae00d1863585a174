# The package for CPUs with its pinned versions; by default it trains and evaluates the quickstart.
#   docker build -t c2c-lightning .
#   docker run --rm -v "$PWD/runs:/app/runs" c2c-lightning
# A small image without CUDA: --build-arg TORCH_INDEX=ADDRESS, PyTorch's index of CPU wheels (docs/container.md).
FROM python:3.11-slim

# Empty: PyTorch comes from pip's own index, with the CUDA libraries on Linux.
ARG TORCH_INDEX=

WORKDIR /app
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    HF_HOME=/app/cache \
    MPLCONFIGDIR=/app/cache/matplotlib \
    OMP_NUM_THREADS=1 \
    TOKENIZERS_PARALLELISM=false

# Dependencies first: a change of the package does not install them again.
COPY constraints.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch

COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY c2c_lightning c2c_lightning
COPY configs configs
RUN pip install --no-cache-dir --constraint constraints.txt '.[plots,eval,serve]'

COPY benchmarks benchmarks
# Writable for every user: `--user` chooses the owner of what a run writes.
RUN useradd --uid 1000 --no-create-home c2c && mkdir -p runs cache && chmod 1777 runs cache
USER c2c

CMD ["sh", "-c", "lightning fit --config quickstart && lightning test --config quickstart"]

# docker build -t faceverse .                 docker run --rm -p 7860:7860 faceverse
# The same two commands as outside: `docker run --rm faceverse make test`, and `make demo` with HOST=0.0.0.0.
FROM python:3.12-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends make libgl1 libegl1 libgles2 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 faceverse \
    && install -d -o faceverse /app

USER faceverse
WORKDIR /app
ENV PYTHONUNBUFFERED=1 OMP_WAIT_POLICY=PASSIVE GRADIO_TEMP_DIR=/tmp/gradio

# Another index for wheels without CUDA saves some gigabytes: --build-arg PIP_EXTRA_INDEX_URL=...
ARG PIP_EXTRA_INDEX_URL
COPY --chown=faceverse requirements.txt ./
RUN python -m venv .venv && .venv/bin/pip install --no-cache-dir -q -r requirements.txt

COPY --chown=faceverse . .
# The fit proves that the image works, and leaves compiled kernels behind, so that the first visitor need not wait.
RUN make install && .venv/bin/python -m faceverse fit sample -o /tmp/sample && rm -r /tmp/sample

EXPOSE 7860
HEALTHCHECK --start-period=60s --interval=30s --timeout=5s \
    CMD [".venv/bin/python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7860/robots.txt', timeout=4)"]
CMD ["make", "serve", "HOST=0.0.0.0"]

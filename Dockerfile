# hwsim with its command: docker build -t hwsim . && docker run --rm -v "$PWD:/work" hwsim evaluate resnet18 eyeriss_v1
FROM python:3.11-slim
# Any compiler of the image does.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch==2.13.0 \
    && pip install --no-cache-dir -c constraints.txt '.[onnx,report,explore]' \
    && useradd --create-home --uid 1000 hwsim
USER 1000
WORKDIR /work
ENTRYPOINT ["hwsim"]
CMD ["--help"]

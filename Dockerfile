# Two images:  docker build --target operator -t pathoscale/operator:0.1.0 .
#              docker build --target trainer  -t pathoscale/trainer:0.1.0 .
# Both run as 65532 and with a read-only root file system; only /tmp has to be writable. For builds that are the same twice, pin the base:
# --build-arg BASE=python:3.11-slim@sha256:...  and say what was built:  --build-arg REVISION=$(git rev-parse HEAD)
ARG BASE=python:3.11-slim
# an older glibc than the base's, so that what it builds loads there
ARG RUST=rust:1.95-slim-bookworm

FROM ${BASE} AS tools
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# pip takes the hashes of what an extra needs out of a constraints file only since 26.1
RUN echo 'pip==26.3 --hash=sha256:f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13' > /pip.txt \
 && pip install --require-hashes --requirement /pip.txt && python -m venv --without-pip /opt/venv
WORKDIR /src
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
[open(e + '.txt', 'w').write('\n'.join(p['dependencies'] + p['optional-dependencies'][e])) for e in ('operator', 'trainer')]"

FROM tools AS wheel
RUN pip install --require-hashes --constraint constraints.txt hatchling
COPY README.md LICENSE NOTICE ./
COPY operator operator
COPY trainer trainer
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheel .

FROM tools AS operator-packages
RUN pip --python /opt/venv install --require-hashes --constraint constraints.txt --requirement operator.txt
COPY --from=wheel /wheel /wheel
COPY packaging/sbom.py /sbom.py
RUN pip --python /opt/venv install --no-deps --no-index /wheel/*.whl && /opt/venv/bin/python /sbom.py > /opt/venv/sbom.json

FROM ${RUST} AS native
RUN apt-get update && apt-get install -y --no-install-recommends cmake make nasm && rm -rf /var/lib/apt/lists/*
COPY native /native
RUN mkdir /built && /native/build.sh /built

FROM tools AS trainer-packages
RUN pip --python /opt/venv install --require-hashes --constraint constraints.txt --requirement trainer.txt
COPY --from=wheel /wheel /wheel
COPY --from=native /built /built
RUN cp -r /built/. "$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')" && /opt/venv/bin/python -c 'import patho_native'
COPY packaging/sbom.py /sbom.py
RUN pip --python /opt/venv install --no-deps --no-index /wheel/*.whl && /opt/venv/bin/python /sbom.py > /opt/venv/sbom.json

FROM ${BASE} AS runtime
# kopf and torch ask for the user's name, and 65532 (or whatever a cluster puts in its place) has no entry in /etc/passwd
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp USER=pathoscale PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
ARG REVISION=""
LABEL org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.version="0.1.0"
USER 65532:65532

FROM runtime AS operator
LABEL org.opencontainers.image.title="pathoscale operator"
COPY --from=operator-packages /opt/venv /opt/venv
EXPOSE 8080
CMD ["python", "-m", "patho_operator"]

FROM runtime AS trainer
LABEL org.opencontainers.image.title="pathoscale trainer"
COPY --from=trainer-packages /opt/venv /opt/venv
EXPOSE 9400 29500
CMD ["patho", "--help"]

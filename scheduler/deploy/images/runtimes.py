"""Names of the images that `make images` builds: the one place that says them.

Every image carries the label `INPUTS`, a digest of all that went into it, so that it is built again exactly
when something has changed.
"""

from __future__ import annotations

BASE_IMAGE = "hearth-base:latest"
"""Python and nothing else; what the runtime and example images stand on."""

RUNTIMES = {"python": "hearth-runtime/python:latest"}
"""Runtime, as `runtime:` in functions.yaml says it, to the image that handlers of it run on."""

EXAMPLE_IMAGES = ("hearth-example/busybox:latest", "hearth-example/api:latest")
"""Images that the example functions name; they know nothing of Hearth."""

GATEWAY_IMAGE = "hearth/gateway:latest"
"""The gateway itself; built by `make gateway-image` only."""

REQUIRED_IMAGES = (BASE_IMAGE, *RUNTIMES.values(), *EXAMPLE_IMAGES)
"""What must be on the engine before the example functions can run."""

INPUTS = "org.hearth.inputs"
"""Label: digest of an image's inputs."""

RUNTIME_LABEL = "org.hearth.runtime"
"""Label of a runtime image: the name of its runtime."""

PYTHON_LABEL = "org.hearth.python"
"""Label: the Python of an image, as `3.11`."""

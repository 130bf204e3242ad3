"""How long the fuzzers look: a few seconds each, or hours with `pytest --hypothesis-profile=long tests/property`."""

from hypothesis import HealthCheck, settings

NOT_TOLD = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]

settings.register_profile(
    "short", max_examples=300, deadline=None, print_blob=True, suppress_health_check=NOT_TOLD
)
settings.register_profile("long", settings.get_profile("short"), max_examples=100_000)
if settings.get_current_profile_name() != "long":
    settings.load_profile("short")

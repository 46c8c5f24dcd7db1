"""Whether the hub of models and data sets can be asked at all."""

from __future__ import annotations

SECONDS = 5.0


def hub_answers() -> bool:
    """Send the hub one short request, by the way (proxy, mirror, certificates) that its own client takes.

    That client tries every download six times, half a minute in all, before it says that there is no network.
    """
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except Exception:  # whatever its HTTP library raises, or that it is told to stay offline: there is no answer
        return False
    return True

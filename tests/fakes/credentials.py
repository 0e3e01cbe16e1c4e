"""Credentials from a dictionary instead of the environment, without tokens."""

from noria.domain.errors import NoCredentials


class FixedCredentials:
    """`ports.Credentials` that knows the keys it is given."""

    def __init__(self, keys: dict[str, str] | None = None) -> None:
        self.keys = keys or {}

    async def headers(self, upstream):
        if upstream.auth == "none":
            return {}
        if upstream.key not in self.keys:
            raise NoCredentials(f"{upstream.key} isn't set.", f"Set {upstream.key}.")
        key = self.keys[upstream.key]
        return {"api-key": key} if upstream.kind == "azure" else {"authorization": f"Bearer {key}"}

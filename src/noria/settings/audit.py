"""How the account of changes is kept beyond its owner's reach."""

from pydantic import Field

from noria.settings.basics import Strict


class Audit(Strict):
    """Daily roots of the account: where they are kept, and who signs them."""

    anchors: str = Field(
        "", description="Folder for the account's daily roots, best on another machine; default is .noria/anchors."
    )
    key: str = Field("", description="Environment variable that holds the Ed25519 key that signs them.")

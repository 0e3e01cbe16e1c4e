"""Who is answerable for what: the policy in force, the card of every version, the account of every change."""

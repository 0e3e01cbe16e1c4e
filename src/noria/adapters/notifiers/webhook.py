"""Telling a program of one's own of alerts: a signed JSON POST."""

import hashlib
import hmac
import socket

import msgspec

from noria.adapters.notifiers.posting import TIMEOUT_S, Post, Resolve
from noria.adapters.notifiers.words import sentence
from noria.domain.delivery import Notice


class WebhookNotifier:
    """POSTs each notice as JSON.

    The body is `{"type": "alert.firing" | "alert.resolved", "delivery": …, "text": …, "alert": {…}, "alerts": […],
    "next": {…}}` with the alerts under their own field names; `alert` is the first of them, `next` says for each id
    what happens next. `delivery`, which is the header `X-Noria-Delivery`, too, is the same whenever the same notice is
    sent again. With a secret, `X-Noria-Signature` is `sha256=` and the hex HMAC-SHA256 of the body.

    Args:
        url: http(s) address. Its path may hold a token, so only its host is ever shown.
        number: Tells two webhooks on one host apart.
        secret: Key of the signature; empty for none.
        timeout_s: Longest time in all, seconds.
        resolve: Name and port → addresses, as `socket.getaddrinfo`; tests give their own.

    Raises:
        InvalidProject: The address is not http(s).
    """

    def __init__(
        self,
        url: str,
        *,
        number: int = 1,
        secret: str = "",
        timeout_s: float = TIMEOUT_S,
        resolve: Resolve = socket.getaddrinfo,
    ) -> None:
        self._post = Post(url, f"notify.webhooks[{number - 1}].url", f"webhook {number}", timeout_s, resolve)
        self._secret = secret
        self.name = self._post.label

    def notify(self, notice: Notice) -> None:
        """See the port."""
        body = msgspec.json.encode(
            {
                "type": f"alert.{notice.state.value}",
                "delivery": notice.id,
                "text": "\n".join(sentence(alert) for alert in notice.alerts),
                "alert": notice.alerts[0],
                "alerts": notice.alerts,
                "next": notice.next,
            }
        )
        headers = {"X-Noria-Delivery": notice.id}
        if self._secret:
            digest = hmac.new(self._secret.encode(), body, hashlib.sha256).hexdigest()
            headers["X-Noria-Signature"] = f"sha256={digest}"
        self._post.send(body, headers)

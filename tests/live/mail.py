"""A mail server that wants STARTTLS and a password, and writes what it takes to a file, a JSON line each.

nobody@ is not there (550); the first mail to later@ is to come again (451). Arguments: port, directory with
server.pem and server.key, file; `open` as a fourth: it offers no STARTTLS."""

import email.policy
import json
import ssl
import sys
import threading

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

port, home, path = int(sys.argv[1]), sys.argv[2], sys.argv[3]


class Office:
    asked = 0

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody@"):
            return "550 5.1.1 nobody of that name"
        if address.startswith("later@"):
            self.asked += 1
            if self.asked == 1:
                return "451 4.7.1 come again"
        envelope.rcpt_tos.append(address)
        return "250 fine"

    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        said = {kind: mail.get_body((kind,)).get_content() for kind in ("plain", "html")}
        said["headers"] = {name.lower(): str(value) for name, value in mail.items()}
        said["to"], said["tls"] = envelope.rcpt_tos, session.ssl is not None
        with open(path, "a") as file:
            file.write(json.dumps(said) + "\n")
        return "250 taken"


def known(server, session, envelope, mechanism, data):
    is_known = (data.login, data.password) == (b"me", b"secret")
    return AuthResult(success=is_known, handled=is_known)


if sys.argv[4:] == ["open"]:
    Controller(Office(), hostname="127.0.0.1", port=port).start()
else:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home + "/server.pem", home + "/server.key")
    Controller(
        Office(), hostname="127.0.0.1", port=port, tls_context=context, require_starttls=True,
        authenticator=known, auth_required=True,
    ).start()
threading.Event().wait()

"""Encryption: certificates from files, read again when they change.

>>> Certificates(Path("none.pem"), Path("none.key"))
Traceback (most recent call last):
    ...
pointsman.server.guards.tls.TlsError: cannot read a certificate or key: [Errno 2] No such file or directory: 'none.pem'
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import grpc

log = logging.getLogger("pointsman.tls")


class TlsError(Exception):
    """The certificates cannot be used; the message says why."""


class Certificates:
    """A certificate chain, its key and, if callers must show one too, the roots of theirs: files in PEM form.

    Raises ``TlsError`` if they cannot be read or do not belong together.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._contents = self._read_and_check()
        self._warned = ""

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials that follow the files: every new connection gets the certificate that they hold then."""
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._contents),
            self._changed,  # type: ignore[arg-type]  # None, for no change, is allowed
            require_client_authentication=self._client_ca is not None,
        )

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The configuration if the files have changed, else ``None``. gRPC calls this for every handshake, on its own threads."""
        try:
            contents = self._read()
            if contents == self._contents:
                self._warned = ""
                return None
            self._check(contents)
        except (OSError, TlsError) as error:
            if str(error) != self._warned:  # once, not for every connection
                self._warned = str(error)
                log.warning("keeping the former certificates: %s", error)
            return None
        self._contents, self._warned = contents, ""
        log.info("reloaded the certificates")
        return _configuration(contents)

    def _read_and_check(self) -> tuple[bytes, bytes, bytes | None]:
        try:
            contents = self._read()
        except OSError as error:
            raise TlsError(f"cannot read a certificate or key: {error}") from error
        self._check(contents)
        return contents

    def _read(self) -> tuple[bytes, bytes, bytes | None]:
        """Certificate chain, key and roots. Raises ``OSError``."""
        roots = None if self._client_ca is None else self._client_ca.read_bytes()
        return self._cert.read_bytes(), self._key.read_bytes(), roots

    def _check(self, contents: tuple[bytes, bytes, bytes | None]) -> None:
        """Raise ``TlsError`` if the files do not belong together, or are not ``contents`` any more.

        OpenSSL reads the files itself, so that it would check something else than ``contents`` if they were written meanwhile.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._cert, self._key, password=lambda: "")
        except (ssl.SSLError, OSError, ValueError) as error:
            raise TlsError(f"{self._cert} and {self._key} are not a certificate and its key: {error}") from error
        if self._client_ca is not None:
            try:
                context.load_verify_locations(self._client_ca)
            except (ssl.SSLError, OSError) as error:
                raise TlsError(f"{self._client_ca} is not a certificate: {error}") from error
        try:
            unchanged = self._read() == contents
        except OSError as error:
            raise TlsError(f"cannot read a certificate or key: {error}") from error
        if not unchanged:
            raise TlsError(f"{self._cert} or {self._key} is being written")


def _configuration(contents: tuple[bytes, bytes, bytes | None]) -> grpc.ServerCertificateConfiguration:
    cert, key, roots = contents
    return grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=roots)
